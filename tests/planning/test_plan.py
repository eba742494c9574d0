from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.planning.partitions import MIN_ROWS, Size, read_partition
from captioner.jobs.planning.plan import Plan, make_plan, vanished_file
from captioner.jobs.sources.source import Source
from captioner.jobs.table import buckets
from captioner.jobs.table.keys import Redo
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.schemas.caption_table import caption_table_schema
from captioner.schemas.image_record import plan_schema


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = OutFolder(tmp_path / "out").new_run()
    run.create()
    return run


def source(
    uris: Sequence[str], versions: Sequence[str | None] = (), batch: int = 7, scope: str = ""
) -> Source:
    schema = plan_schema(pa.schema([("id", pa.string())]))
    columns = [uris, versions or [None] * len(uris), [f"id {uri}" for uri in uris]]
    table = pa.table(columns, schema=schema)
    return Source(
        schema, iter(table.to_batches(max_chunksize=batch)), scope=lambda uri: uri.startswith(scope)
    )


def commit(
    run: RunFolder,
    uris: Sequence[str],
    version: str | None = None,
    name: str = "000000",
    **values: object,
) -> None:
    """Rows that the captioner "now" has written, if `values` do not say otherwise."""
    row = {"status": "ok", "captioner": "now", "run_id": "1", "annotated_at": datetime.now(UTC)}
    rows = [{"image_uri": uri, "image_version": version, **row, **values} for uri in uris]
    pq.write_table(pa.Table.from_pylist(rows, caption_table_schema()), run.part(name))


def plan_of(
    run: RunFolder,
    listing: Source,
    partition_size: int = 10,
    limit: int | None = None,
    **redo: Any,
) -> Plan:
    size = Size(partition_size, limit)
    return make_plan(listing, run.out, run.scratch, size, Redo("now", **redo))


def planned(plan: Plan, run: RunFolder) -> list[list[str]]:
    numbers = range(len(plan.partition_sizes))
    return [read_partition(run.scratch, number)["image_uri"].to_pylist() for number in numbers]


def vanished(run: RunFolder) -> list[str]:
    with pa.OSFile(str(vanished_file(run.scratch))) as file:
        return sorted(pyarrow.ipc.open_file(file).read_all()["image_uri"].to_pylist())


def test_partitions_are_the_batches_of_one_file_in_the_order_of_the_source(run: RunFolder) -> None:
    uris = [f"{n:04d}" for n in range(1000)]
    plan = plan_of(run, source(uris), partition_size=30)
    partitions = planned(plan, run)
    assert [uri for partition in partitions for uri in partition] == uris
    assert plan.partition_sizes == [30] * 33 + [10]
    assert read_partition(run.scratch, 1)["id"].to_pylist()[0] == "id 0030"


def test_a_small_job_has_small_partitions_so_that_all_workers_have_some(run: RunFolder) -> None:
    plan = plan_of(run, source([str(n) for n in range(200)]), partition_size=500)
    assert plan.partition_sizes == [MIN_ROWS, MIN_ROWS, MIN_ROWS, 8]


def test_the_same_listing_gives_the_same_partitions(run: RunFolder) -> None:
    uris = [str(n) for n in range(100)]
    one = planned(plan_of(run, source(uris, batch=3)), run)
    other = planned(plan_of(run, source(uris, batch=64)), run)
    assert one == other


def test_images_with_a_row_in_the_table_are_no_work(run: RunFolder) -> None:
    commit(run, ["b", "d", "elsewhere"])
    plan = plan_of(run, source(["a", "b", "c", "d"]))
    assert planned(plan, run) == [["a", "c"]]
    counts = plan.counts
    assert (counts.listed, counts.new, counts.already_there, plan.images) == (4, 2, 2, 2)


def test_an_image_listed_twice_is_captioned_once(run: RunFolder) -> None:
    commit(run, ["b"])
    plan = plan_of(run, source(["a", "b", "a", "b", "a"], batch=2))
    assert planned(plan, run) == [["a"]]
    counts = plan.counts
    assert (counts.listed, counts.already_there, counts.duplicates) == (2, 1, 3)


def test_of_members_of_an_archive_with_one_name_the_last_is_captioned(run: RunFolder) -> None:
    uris = ["a", "tar://1.jpg::x.tar", "tar://1.jpg::x.tar", "zip://1::x.zip", "a"]
    listing = source(uris, ["first", "second", "third", "fourth", "fifth"])
    plan = plan_of(run, listing)
    rows = read_partition(run.scratch, 0)
    assert rows["image_version"].to_pylist() == ["first", "third", "fourth"]
    assert (plan.counts.listed, plan.counts.duplicates) == (3, 2)


def test_a_source_without_news_makes_an_empty_plan(run: RunFolder) -> None:
    commit(run, ["a"])
    plan = plan_of(run, source(["a"]))
    assert (plan.images, plan.partition_sizes) == (0, [])


def test_an_image_of_another_version_replaces_its_row_after_all_new_ones(run: RunFolder) -> None:
    commit(run, ["a", "b"], "1", "000000")
    commit(run, ["c", "d"], "1", "000001")
    plan = plan_of(run, source(["b", "c", "d", "e"], ["1", "2", "2", "1"]))
    assert planned(plan, run) == [["e"], ["c", "d"]]
    assert (plan.first_redo, plan.counts.new, plan.counts.changed) == (1, 1, 2)
    replaces = [read_partition(run.scratch, number)["replaces"].to_pylist() for number in (0, 1)]
    assert replaces == [[None], [run.part("000001").name] * 2]


@pytest.mark.parametrize(
    ("then", "now", "is_changed"),
    [("1", "1", 0), ("1", "2", 1), ("1", None, 0), (None, None, 0), (None, "1", 1)],
)
def test_a_version_that_the_source_does_not_know_is_no_change(
    run: RunFolder, then: str | None, now: str | None, is_changed: int
) -> None:
    commit(run, ["a"], then)
    assert plan_of(run, source(["a"], [now])).counts.changed == is_changed


def test_rows_of_another_captioner_are_kept_or_redone(run: RunFolder) -> None:
    commit(run, ["a"], captioner="then")
    commit(run, ["b"], name="000001")
    kept = plan_of(run, source(["a", "b"])).counts
    assert (kept.stale, kept.kept_stale, kept.already_there) == (0, 1, 2)
    plan = plan_of(run, source(["a", "b"]), stale=True)
    assert planned(plan, run) == [["a"]]
    assert (plan.counts.stale, plan.counts.kept_stale, plan.counts.already_there) == (1, 0, 1)


def test_failures_are_tried_again_by_their_kind(run: RunFolder) -> None:
    for number, status in enumerate(["ok", "timeout", "unreadable"]):
        commit(run, [status], name=f"{number:06d}", status=status)
    listing = ["ok", "timeout", "unreadable"]
    assert plan_of(run, source(listing)).images == 0
    plan = plan_of(run, source(listing), failures=frozenset({"timeout", "denied"}))
    assert planned(plan, run) == [["timeout"]]
    assert (plan.counts.retried, plan.counts.already_there) == (1, 2)


def test_images_that_lacked_memory_are_tried_again_alone(run: RunFolder) -> None:
    commit(run, ["a", "b", "c", "d"], status="out_of_memory")
    commit(run, ["e", "f"], name="000001", status="timeout")
    failures = frozenset({"out_of_memory", "timeout"})
    plan = plan_of(run, source(["f", "d", "new", "c", "e", "b"]), limit=5, failures=failures)
    assert planned(plan, run) == [["new"], ["f", "e"], ["d"], ["c"]]
    assert (plan.first_redo, plan.counts.retried, plan.postponed) == (1, 5, 1)
    replaces = read_partition(run.scratch, 3)["replaces"].to_pylist()
    assert replaces == [run.part("000000").name]


def test_all_rows_are_redone_by_force_and_each_is_counted_once(run: RunFolder) -> None:
    commit(run, ["same", "changed"], "1", "000000")
    commit(run, ["stale"], "1", "000001", captioner="then")
    commit(run, ["failed"], "1", "000002", status="timeout")
    listing = source(["new", "same", "changed", "stale", "failed"], ["1", "1", "2", "1", "1"])
    plan = plan_of(run, listing, everything=True, failures=frozenset({"timeout"}))
    counts = plan.counts
    assert (counts.new, counts.changed, counts.retried, counts.forced) == (1, 1, 1, 2)
    assert (counts.already_there, counts.kept_stale) == (0, 0)
    assert planned(plan, run) == [["new"], ["same", "changed", "stale", "failed"]]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [["b"]]),
        (2, [["b", "d"]]),
        (3, [["b", "d"], ["a"]]),
        (4, [["b", "d"], ["a", "c"]]),
        (9, [["b", "d"], ["a", "c"]]),
    ],
)
def test_a_limit_keeps_the_first_images_of_the_plan(
    run: RunFolder, limit: int, expected: list[list[str]]
) -> None:
    commit(run, ["a", "c", "gone"], "1")
    versions = ["2", "1", "2", "1", "2"]
    plan = plan_of(run, source(["a", "b", "c", "d", "b"], versions, batch=2), limit=limit)
    assert planned(plan, run) == expected
    assert plan.postponed == 4 - plan.images
    counts = plan.counts
    assert (counts.new, counts.changed, counts.vanished, counts.duplicates) == (2, 2, 1, 1)
    assert vanished(run) == ["gone"]


def test_a_limit_ends_within_a_partition(run: RunFolder) -> None:
    plan = plan_of(run, source([f"{n:04d}" for n in range(1000)]), partition_size=100, limit=250)
    assert plan.partition_sizes == [64, 64, 64, 58]
    assert (plan.images, plan.postponed, plan.counts.new) == (250, 750, 1000)


def test_what_the_source_no_longer_lists_has_vanished_if_it_could_be_listed(run: RunFolder) -> None:
    commit(run, ["/photos/a", "/photos/gone", "/photographs/b", "s3://bucket/c"])
    plan = plan_of(run, source(["/photos/a"], scope="/photos/"))
    assert (plan.counts.vanished, vanished(run)) == (1, ["/photos/gone"])


def test_a_row_that_has_a_later_one_is_surplus(run: RunFolder) -> None:
    early = datetime.now(UTC) - timedelta(days=1)
    commit(run, ["b", "a"], "new", "000000")
    commit(run, ["c", "a"], "old", "000001", annotated_at=early)
    plan = plan_of(run, source(["a"], ["new"]))
    assert plan.surplus == {run.part("000001"): [1]}
    assert (plan.images, plan.counts.already_there) == (0, 1)


def test_every_image_of_a_long_listing_finds_its_row(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through many buckets, each spilled several times, against an independent account."""
    monkeypatch.setattr(buckets, "SPILL_ROWS", 500)
    random = np.random.default_rng(0)
    listed = [f"s3://bucket/{n}" for n in random.integers(0, 3000, 4000)]
    versions = [str(n) for n in random.integers(0, 2, 4000)]
    there = [f"s3://bucket/{n}" for n in random.permutation(4000)[:2500]]
    for number, start in enumerate(range(0, 2500, 400)):
        commit(run, there[start : start + 400], "0", f"{number:06d}")
    plan = plan_of(run, source(listed, versions, batch=90), partition_size=50)

    first = dict(reversed(list(zip(listed, versions, strict=True))))
    new = [uri for uri in dict.fromkeys(listed) if uri not in set(there)]
    changed = [uri for uri in dict.fromkeys(listed) if uri in set(there) and first[uri] == "1"]
    assert [uri for partition in planned(plan, run) for uri in partition] == new + changed
    assert sum(plan.partition_sizes[: plan.first_redo]) == len(new)
    assert vanished(run) == sorted(set(there) - set(listed))
    files = {uri: f"{number // 400:06d}" for number, uri in enumerate(there)}
    for number in range(plan.first_redo, len(plan.partition_sizes)):
        for row in read_partition(run.scratch, number).to_pylist():
            assert row["replaces"] == run.part(files[row["image_uri"]]).name
            assert row["id"] == f"id {row['image_uri']}"


def test_a_foreign_file_in_the_table_is_an_error_that_names_it(run: RunFolder) -> None:
    (run.out.captions / "foreign.parquet").write_text("text")
    with pytest.raises(UsageError, match=r"foreign\.parquet is not a file of a caption table"):
        plan_of(run, source(["a"]))


def test_a_table_file_without_a_column_of_the_table_is_an_error(run: RunFolder) -> None:
    pq.write_table(pa.table({"image_uri": ["a"]}), run.part("000000"))
    with pytest.raises(UsageError, match="has no column image_version"):
        plan_of(run, source(["a"]))


def with_numbers(run: RunFolder, name: str, kind: pa.DataType) -> None:
    """A table's file that has a column `id` of numbers, and one after it that does not."""
    commit(run, ["a"], name=name)
    table = pq.read_table(run.part(name))
    pq.write_table(table.append_column("id", pa.array([1], kind)), run.part(name))
    commit(run, ["b"], name=f"{name}-later")


@pytest.mark.parametrize("uri", ["a", "c"])
def test_a_column_of_another_type_than_the_tables_is_refused_by_name(
    run: RunFolder, uri: str
) -> None:
    with_numbers(run, "000000", pa.int64())
    with pytest.raises(UsageError, match=r"column id is string .* int64 in the table"):
        plan_of(run, source([uri], ["new"]))


@pytest.mark.parametrize("column", [[7], [None]])
def test_whole_numbers_and_nulls_fit_a_column_of_fractions(
    run: RunFolder, column: list[int | None]
) -> None:
    with_numbers(run, "000000", pa.float64())
    own = pa.field("id", pa.int64() if column[0] else pa.string())
    batch = pa.record_batch([["c"], [None], pa.array(column, own.type)], schema=plan_schema([own]))
    plan_of(run, Source(batch.schema, iter([batch])))
    planned_ids = read_partition(run.scratch, 0)["id"]
    assert (planned_ids.type, planned_ids.to_pylist()) == (pa.float64(), column)


def test_categories_and_large_text_are_text(run: RunFolder) -> None:
    """Each batch has categories of its own, as row groups of Parquet have."""
    kind = pa.dictionary(pa.int32(), pa.string())
    schema = plan_schema(pa.schema([("id", kind), ("note", pa.large_string())]))
    batches = [
        pa.record_batch([[uri], [None], pa.array([uri], kind), [f"about {uri}"]], schema=schema)
        for uri in "ab"
    ]
    plan_of(run, Source(schema, iter(batches)))
    partition = read_partition(run.scratch, 0)
    assert partition.schema.field("id").type == partition.schema.field("note").type == pa.string()
    assert partition["id"].to_pylist() == ["a", "b"]


def test_a_number_that_no_fraction_is_exactly_is_refused(run: RunFolder) -> None:
    with_numbers(run, "000000", pa.float64())
    own = pa.field("id", pa.int64())
    batch = pa.record_batch([["c"], [None], pa.array([2**53 + 1])], schema=plan_schema([own]))
    with pytest.raises(UsageError, match="column id is int64"):
        plan_of(run, Source(batch.schema, iter([batch])))
