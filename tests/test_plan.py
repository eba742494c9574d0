from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import UsageError
from jobs.folders import OutFolder, RunFolder
from jobs.plan import MIN_ROWS, Plan, make_plan, read_partition
from jobs.source import Source
from schemas.image_record import plan_schema


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = OutFolder(tmp_path / "out").new_run()
    run.create()
    return run


def source(uris: Sequence[str], batch: int = 7) -> Source:
    schema = plan_schema(pa.schema([("id", pa.string())]))
    table = pa.table([uris, [None] * len(uris), [f"id {uri}" for uri in uris]], schema=schema)
    return Source(schema, iter(table.to_batches(max_chunksize=batch)))


def commit(run: RunFolder, uris: Sequence[str]) -> None:
    pq.write_table(pa.table({"image_uri": uris}), run.part("000000"))


def planned(plan: Plan, run: RunFolder) -> list[list[str]]:
    numbers = range(len(plan.partition_sizes))
    return [read_partition(run.plan, number)["image_uri"].to_pylist() for number in numbers]


def test_partitions_are_the_row_groups_of_one_file_in_the_order_of_the_source(
    run: RunFolder,
) -> None:
    uris = [f"{n:04d}" for n in range(1000)]
    plan = make_plan(source(uris), run, partition_size=30)
    partitions = planned(plan, run)
    assert [uri for partition in partitions for uri in partition] == uris
    assert plan.partition_sizes == [30] * 33 + [10]
    assert read_partition(run.plan, 1)["id"].to_pylist()[0] == "id 0030"


def test_a_small_job_has_small_partitions_so_that_all_workers_have_some(run: RunFolder) -> None:
    plan = make_plan(source([str(n) for n in range(200)]), run, partition_size=500)
    assert plan.partition_sizes == [MIN_ROWS, MIN_ROWS, MIN_ROWS, 8]


def test_the_same_listing_gives_the_same_partitions(run: RunFolder) -> None:
    uris = [str(n) for n in range(100)]
    one = planned(make_plan(source(uris, batch=3), run, 10), run)
    other = planned(make_plan(source(uris, batch=64), run, 10), run)
    assert one == other


def test_images_with_a_row_in_the_table_are_no_work(run: RunFolder) -> None:
    commit(run, ["b", "d", "elsewhere"])
    plan = make_plan(source(["a", "b", "c", "d"]), run, 10)
    assert planned(plan, run) == [["a", "c"]]
    assert (plan.listed, plan.already_there, plan.images) == (4, 2, 2)


def test_an_image_listed_twice_is_captioned_once(run: RunFolder) -> None:
    commit(run, ["b"])
    plan = make_plan(source(["a", "b", "a", "b", "a"], batch=2), run, 10)
    assert planned(plan, run) == [["a"]]
    assert (plan.listed, plan.already_there, plan.duplicates) == (2, 1, 3)


def test_a_source_without_news_makes_an_empty_plan(run: RunFolder) -> None:
    commit(run, ["a"])
    plan = make_plan(source(["a"]), run, 10)
    assert (plan.images, plan.partition_sizes) == (0, [])


def test_a_foreign_file_in_the_table_is_an_error_that_names_it(run: RunFolder) -> None:
    (run.out.captions / "foreign.parquet").write_text("text")
    with pytest.raises(UsageError, match=r"not of the caption table.*foreign\.parquet"):
        make_plan(source(["a"]), run, 10)


def test_a_column_of_another_type_than_the_tables_is_refused_by_name(run: RunFolder) -> None:
    pq.write_table(pa.table({"image_uri": ["a"], "id": [1]}), run.part("000000"))
    with pytest.raises(UsageError, match=r"column id is string .* int64"):
        make_plan(source(["b"]), run, 10)
