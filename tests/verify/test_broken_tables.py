"""`captioner verify` names each fault of a table with its file, and repairs what is safe."""

import errno
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.find.index import update_index
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.verify import files
from captioner.jobs.verify.findings import SHOWN, Kind, Verification
from captioner.jobs.verify.verify import verify_table
from captioner.schemas.image_record import REPLACES
from tests.support.broken import Change, change, parts, with_values
from tests.support.photographs import write_photographs
from tests.support.rows import CAPTIONER, decide, row, write_old_rows, write_rows
from tests.support.stores import locked
from tests.support.tables import read_table

SHA = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, scheduler: str, calibrated_checkpoint: Path
) -> JobConfig:
    """Return a job that has captioned ten photographs, and a damaged one, into four files."""
    folder = tmp_path_factory.mktemp("verify")
    photos = write_photographs(folder / "photos", 10)
    (photos / "torn.jpg").write_bytes(b"")
    job = JobConfig(
        source=photos,
        out=folder / "out",
        checkpoint=calibrated_checkpoint,
        device="cpu",
        scheduler=scheduler,
        partition_size=3,
        min_confidence=0.5,
        embeddings=True,
        quiet=True,
    )
    run_job(job)
    return job


@pytest.fixture
def out(job: JobConfig, tmp_path: Path) -> Path:
    """Return a copy of the table."""
    return Path(shutil.copytree(str(job.out), tmp_path / "out"))


def faults(out: Path) -> Sequence[str]:
    """Verify; return the kind and text of each fault."""
    found = verify_table(out)
    assert found.is_right == (not found.faults)
    return [f"{each.kind}: {each}" for each in found.faults]


def only_fault(out: Path) -> str:
    (fault,) = faults(out)
    return fault


def repaired(out: Path) -> Verification:
    return verify_table(out, repair=True)


# Files


@pytest.mark.parametrize("size", [0, 3, 500])
def test_a_truncated_file_is_named_and_repair_moves_it_aside(
    out: Path, size: int, job: JobConfig
) -> None:
    path = parts(out)[0]
    path.write_bytes(path.read_bytes()[:size])
    assert only_fault(out).startswith(f"file: captions/{path.name}: cannot be opened")
    found = repaired(out)
    assert f"moved captions/{path.name}" in found.repaired[0]
    assert (out / "damaged" / path.name).stat().st_size == size
    (lost,) = found.faults
    assert (lost.kind, "3 of the 11 rows" in lost.what) == (Kind.RUN, True)
    assert path.name in lost.what
    assert run_job(replace(job, out=out)).new == 3
    assert faults(out) == []


def test_a_file_that_may_not_be_read_is_named_and_stays(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, opened: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "_opened", denied)
    assert "Permission denied); let this user read it" in faults(out)[0]
    names = sorted(path.name for path in (out / "captions").iterdir())
    repaired(out)
    assert names == sorted(path.name for path in (out / "captions").iterdir())


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_a_bit_that_flips_in_a_page_is_found_and_the_file_stays(out: Path, share: float) -> None:
    path = parts(out)[1]
    data = bytearray(path.read_bytes())
    pages = len(data) - pq.read_metadata(path).serialized_size
    for place in range(int(pages * share), int(pages * share) + 60):  # more than a page's header
        data[place] ^= 1
    path.write_bytes(data)
    assert f"file: captions/{path.name}: cannot be read from row 0 on" in only_fault(out)
    assert repaired(out).counts == {Kind.FILE: 1}
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["notes.txt", "part.csv", ".x.parquet.4711.unfinished"])
def test_anything_else_among_the_files_is_named_and_only_unfinished_files_go(
    out: Path, name: str
) -> None:
    (out / "captions" / name).write_text("a")
    assert f"file: captions/{name}: is no file of a table" in only_fault(out)
    assert repaired(out).is_right == name.endswith(".unfinished")


def test_a_file_with_other_columns_is_no_file_of_the_table(out: Path) -> None:
    pq.write_table(pa.table({"image_uri": ["a"], "x": [1]}), out / "captions" / "z.parquet")
    found = faults(out)
    assert "schema: captions/z.parquet: has no column status" in "\n".join(found)
    assert all("captions/z.parquet" in each for each in found)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (lambda t: t.set_column(8, "caption", t["caption"].cast("binary")), "caption is binary"),
        (lambda t: t.set_column(9, "confidence", t["confidence"].cast("double")), "is double"),
        (lambda t: t.set_column(6, "status", t["status"].cast("string")), "status is string"),
        (lambda t: t.set_column(0, "image_uri", t["image_uri"]), "image_uri may be null"),
        (lambda t: t.drop_columns(["captioner"]), "has no column captioner"),
        (lambda t: t.append_column("replaces", t["run_id"]), "has the column replaces of a plan"),
        (lambda t: t.select([1, 0, *range(2, 20)]), "columns are in another order"),
        (lambda t: t.replace_schema_metadata({}), "unknown version ''"),
        (lambda t: _with_metadata(t, schema_version="99"), "unknown version '99'"),
        (lambda t: _with_metadata(t, captioners="{"), "metadata about captioners"),
        (lambda t: _with_metadata(t, captioners='{"a": {"calibration": {"x": 1}}}'), "captioners"),
        (lambda t: _with_metadata(t, review='{"x": 1}'), "metadata about the review threshold"),
    ],
)
def test_another_schema_is_named(out: Path, changed: Change, what: str) -> None:
    path = parts(out)[0]
    change(path, changed)
    found = [each for each in faults(out) if each.startswith("schema: ")]
    assert any(f"captions/{path.name}" in each and what in each for each in found), found


def _with_metadata(table: pa.Table, **values: str) -> pa.Table:
    changed = {name.encode(): value.encode() for name, value in values.items()}
    return table.replace_schema_metadata({**table.schema.metadata, **changed})


# Rows


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("image_uri", "", "image_uri is missing"),
        ("image_sha256", SHA.upper(), "image_sha256 is not 64 hexadecimal digits"),
        ("image_sha256", None, "image_sha256 is missing"),
        ("width", 0, "width is not above 0"),
        ("height", None, "only one of width and height is known"),
        ("status", "splendid", "status is unknown"),
        ("status", "not_found", "status is not ok, but caption is there"),
        ("error", "odd", "status is ok, but there is an error"),
        ("caption", None, "status is ok, but caption is missing"),
        ("caption", "", "status is ok, but caption is missing"),
        ("confidence", 1.5, "confidence is not in [0, 1]"),
        ("confidence", float("nan"), "confidence is not in [0, 1]"),
        ("needs_review", None, "needs_review does not follow from the threshold"),
        ("log_prob", -900.0, "log_prob is not the sum of token_log_probs"),
        ("log_prob", float("-inf"), "log_prob is not a log-probability"),
        ("token_log_probs", [0.5], "token_log_probs are not log-probabilities"),
        ("alternatives", [{"caption": None, "log_prob": -1.0}], "one without caption"),
        ("word_confidence", [{"word": "", "confidence": 0.5}], "one without word"),
        ("word_confidence", [{"word": "A", "confidence": 1.5}], "one that is not in [0, 1]"),
        ("word_confidence", [{"word": "A", "confidence": None}], "one that is not in [0, 1]"),
        ("captioner", "another@0", "captioner is not named in the metadata of the file"),
        ("run_id", "", "run_id is missing"),
        ("annotated_at", datetime(1970, 1, 1, tzinfo=UTC), "annotated_at is implausible"),
        ("annotated_at", datetime(2970, 1, 1, tzinfo=UTC), "annotated_at is implausible"),
        ("former", {"caption": "A.", "confidence": 2.0, "captioner": "a"}, "former has a conf"),
        ("declined", {"captioner": None, "error": "a"}, "declined has no captioner"),
    ],
)
def test_a_value_that_a_row_may_not_have_is_named(
    out: Path, column: str, value: Any, what: str
) -> None:
    path = parts(out)[0]
    change(path, with_values(column, value))
    (found,) = (each for each in faults(out) if each.startswith("row: ") and what in each)
    assert f"captions/{path.name}" in found
    assert column == "image_uri" or "000.jpg in row 0" in found


def test_text_that_is_no_utf8_is_found(out: Path) -> None:
    path = parts(out)[0]
    broken = pa.array([b"\xff\xfe", b"a", b"b"], pa.binary()).view(pa.string())
    field = pq.read_schema(path).field("caption")
    change(path, lambda table: table.set_column(8, field, broken))
    assert f"file: captions/{path.name}: cannot be read" in only_fault(out)


def test_findings_are_counted_and_only_the_first_are_kept(tmp_path: Path) -> None:
    for number in range(SHOWN + 5):
        write_rows(tmp_path, [row(f"/{number}.jpg", image_sha256="x")], f"f{number:03d}")
    found = verify_table(tmp_path)
    assert found.counts[Kind.ROW] == SHOWN + 5
    assert sum(each.kind == Kind.ROW for each in found.faults) == SHOWN


def test_tables_of_older_versions_have_no_fault(tmp_path: Path) -> None:
    folder = write_old_rows(tmp_path, ["/a.jpg"], former=["label"], note=["n"])
    (path,) = folder.table_files()
    change(Path(path), with_values("image_sha256", SHA))
    assert faults(tmp_path) == []
    change(Path(path), lambda t: t.drop_columns(["needs_review"]))
    assert faults(tmp_path) == []


# Keys and runs


def test_images_with_two_rows_are_named_with_their_files_and_the_latest_row_stays(
    out: Path,
) -> None:
    before = read_table(out)
    path = parts(out)[0]
    late = out / "captions" / "zz.parquet"
    shutil.copy(path, late)
    year = datetime(2026, 11, 1, tzinfo=UTC)
    change(late, lambda table: with_values("annotated_at", *[year] * 3)(table))
    found = faults(out)
    assert sum(each.startswith("key: ") for each in found) == 3
    assert f"000.jpg has 2 rows: {path.name} (row 0), zz.parquet (row 0)" in found[0]
    assert any("the table has 14 rows of this run, which reports fewer: 11" in x for x in found)
    after = repaired(out)
    assert after.is_right
    assert "removed 3 rows superseded by a later one" in after.repaired
    assert read_table(out)["caption"].to_pylist() == before["caption"].to_pylist()


def test_a_part_that_is_gone_is_missed_until_a_run_has_replaced_it(
    out: Path, job: JobConfig
) -> None:
    parts(out)[2].unlink()
    assert "run: runs/" in only_fault(out)
    assert "3 of the 11 rows that this run committed are not in the table" in only_fault(out)
    run_job(replace(job, out=out))
    assert faults(out) == []


def test_repair_passes_over_a_file_that_cannot_be_read_whole(out: Path, job: JobConfig) -> None:
    truncated, flipped, whole, _ = parts(out)
    truncated.write_bytes(truncated.read_bytes()[:500])
    shutil.copy(whole, out / "captions" / "y.parquet")
    shutil.copy(flipped, out / "captions" / "z.parquet")
    shutil.copy(flipped, out / "captions" / "a.parquet")
    _flip(flipped)
    found = repaired(out)
    text = "\n".join(found.repaired)
    assert f"moved captions/{truncated.name}" in text and "could not go on" not in text
    assert "removed 6 rows superseded by a later one in a file that can be read" in text
    assert f"left captions/{flipped.name} as it is" in text
    assert [each.name for each in parts(out)][:2] == [flipped.name, parts(out)[1].name]
    assert {each.name for each in parts(out)} >= {"y.parquet", "z.parquet"}
    (fault,) = found.faults
    (note,) = (each for each in found.harmless if each.kind == Kind.RUN)
    assert "the rows of runs were not counted" in note.what
    with pytest.raises(UsageError, match=f"captioner verify {out}` tells"):
        run_job(replace(job, out=out))
    subprocess.run(["sh", "-c", fault.remedy.split("`")[1]], check=True)
    assert (out / "damaged" / flipped.name).exists()
    assert run_job(replace(job, out=out)).new == 3
    assert faults(out) == []


def _flip(path: Path) -> None:
    """Damage the first column, which every command reads."""
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    for place in range(start, start + min(60, column.total_compressed_size)):
        data[place] ^= 1
    path.write_bytes(data)


def test_a_row_is_not_removed_for_a_later_one_that_cannot_be_read(out: Path) -> None:
    path, late = parts(out)[0], out / "captions" / "zz.parquet"
    shutil.copy(path, late)
    change(late, with_values("annotated_at", *[datetime(2026, 11, 1, tzinfo=UTC)] * 3))
    pq.write_table(pq.read_table(late).drop_columns(["caption"]), late)  # its keys can be read
    before = path.read_bytes()
    found = repaired(out)
    assert path.read_bytes() == before
    assert any(each.startswith("left captions/zz.parquet") for each in found.repaired)


def test_a_run_that_failed_does_not_hide_that_a_part_is_gone(out: Path) -> None:
    (run,) = (out / "runs").glob("[0-9]*")
    failed = out / "runs" / "20990101T000000-000000-0000"
    shutil.copytree(run, failed)
    (failed / "events.jsonl").unlink()
    report = json.loads((failed / "report.json").read_text())
    report |= {"run_id": failed.name, "exit_code": 2, "images": 0, "statuses": {}}
    (failed / "report.json").write_text(json.dumps(report))
    parts(out)[2].unlink()
    assert "3 of the 11 rows that this run committed are not in the table" in only_fault(out)
    with (failed / "job.toml").open("a") as file:
        file.write("\nprune = true\n")
    (note,) = (each for each in verify_table(out).harmless if each.kind == Kind.RUN)
    assert "was to prune and did not end" in note.what


@pytest.mark.parametrize("name", ["report.json", "events.jsonl"])
def test_damaged_records_of_a_run_are_named(out: Path, name: str) -> None:
    (path,) = (out / "runs").glob(f"*/{name}")
    text = path.read_text()
    path.write_text("{}\n" + text)
    assert name in only_fault(out)
    path.write_text("" if name == "report.json" else text + '{"half')
    assert (name in "".join(faults(out))) == (name == "report.json")  # a killed run is cut off
    shutil.rmtree(path.parent)
    assert faults(out) == []


# What surrounds the table


def test_what_killed_commands_left_is_harmless_and_repair_finishes_it(out: Path) -> None:
    run = out / "runs" / "20260101T000000-000000-0000"
    (run / "scratch").mkdir(parents=True)
    (run / "scratch" / "x.unfinished").write_text("a")
    first, second, *_ = parts(out)
    both = pa.concat_tables([pq.read_table(first), pq.read_table(second)])
    pq.write_table(both, first)  # a merge that was killed before it removed the second file
    journal = {"file": first.name, "rows": len(both), "replaces": [second.name]}
    (out / "runs" / ".swap.json").write_text(json.dumps(journal))
    (out / "runs" / ".lock").write_text("run 1, process 2 on elsewhere")
    (out / "answers").mkdir()
    (out / "answers" / "a-b.json").write_text("{}")
    found = verify_table(out)
    assert found.is_right, found.faults
    assert {each.path for each in found.harmless} == {
        *(f"runs/{run.name}/scratch", "runs/.swap.json", "runs/.lock", "answers"),
    }
    after = repaired(out)
    assert (after.is_right, after.rows) == (True, 11)
    assert [each.path for each in after.harmless] == ["answers"]
    assert not second.exists()


def test_a_threshold_that_was_not_finished_is_harmless_but_two_thresholds_are_not(
    out: Path,
) -> None:
    path, review = parts(out)[0], {"min_confidence": 0.0, "since": "2020-01-01T00:00:00+00:00"}
    for name in ("target_precision", "expected_coverage"):
        review[name] = None  # type: ignore[assignment]
    change(path, lambda table: _with_metadata(table, review=json.dumps(review)))
    found = faults(out)
    assert any("threshold: " in x and "marked by another threshold" in x for x in found)
    assert repaired(out).is_right
    (out / "runs" / ".threshold.json").write_text(json.dumps({**review, "min_confidence": 0.9}))
    assert [each.path for each in verify_table(out).harmless] == ["runs/.threshold.json"]
    assert repaired(out).is_right
    assert read_table(out)["needs_review"].to_pylist().count(True) > 0


def test_embeddings_are_read_whole_and_orphans_are_harmless(out: Path) -> None:
    first, second, *_ = sorted((out / "embeddings").iterdir())
    change(first, with_values("image_sha256", SHA))
    (found,) = verify_table(out).harmless
    assert "has 1 embedding whose image is not in the table any more" in found.what
    width = pq.read_schema(second).field("embedding").type.list_size
    change(second, with_values("embedding", [0.5] * width))
    assert f"embedding: embeddings/{second.name}: has 1 vector whose" in only_fault(out)
    second.write_bytes(b"PAR1")
    assert f"embedding: embeddings/{second.name}: cannot be read" in only_fault(out)
    after = repaired(out)
    assert (after.is_right, list(after.harmless)) == (True, [])
    assert f"removed 1 embedding from embeddings/{first.name}" in after.repaired
    assert len(pq.read_table(first)) == 2
    assert not second.exists()


def test_wrong_vectors_are_removed_one_by_one_even_if_a_file_of_the_table_is_unreadable(
    out: Path,
) -> None:
    wrong, orphan, *_ = sorted((out / "embeddings").iterdir())
    width = pq.read_schema(wrong).field("embedding").type.list_size
    change(wrong, with_values("embedding", [0.5] * width))
    change(orphan, with_values("image_sha256", SHA))
    rows, kept = len(pq.read_table(wrong)), orphan.read_bytes()
    break_pages(parts(out)[1])
    after = repaired(out)
    assert f"removed 1 embedding from embeddings/{wrong.name}" in after.repaired
    assert len(pq.read_table(wrong)) == rows - 1
    assert orphan.read_bytes() == kept  # its image may be in the file that cannot be read


def test_rows_of_a_killed_run_are_put_in_place_but_for_files_that_cannot_be_read(
    out: Path,
) -> None:
    unreadable, *others = parts(out)
    waiting = out / "runs" / "20260101T000000-000000-0000" / "replacements"
    waiting.mkdir(parents=True)
    for number, path in enumerate((unreadable, *others)):
        new = with_values("caption", "A new caption.")(pq.read_table(path).slice(0, 1))
        new = new.append_column(REPLACES, pa.array([path.name]))
        pq.write_table(new, waiting / f"{waiting.parent.name}-{number:06d}.parquet")
    break_pages(unreadable)
    after = repaired(out)
    assert any(f"left captions/{unreadable.name} as it is" in each for each in after.repaired)
    captions = [pq.read_table(path)["caption"].to_pylist() for path in others]
    assert all("A new caption." in each for each in captions)
    assert waiting.exists()
    (out / "damaged").mkdir()
    unreadable.rename(out / "damaged" / unreadable.name)  # as the finding says
    repaired(out)
    assert not waiting.exists()


def break_pages(path: Path) -> None:
    """Flip a bit in many pages of a file, but not in its footer."""
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 5, len(data) // 5 + 60):
        data[place] ^= 1
    path.write_bytes(data)


def test_reviews_that_cannot_be_read_are_faults_and_are_never_touched(out: Path) -> None:
    folder = OutFolder(out_path(out))
    decide(folder, "/elsewhere.jpg", "accepted", "A.")
    (found,) = verify_table(out).harmless
    assert found.what == "has 1 decision whose image is not in the table"
    (good,) = (out / "reviews").iterdir()
    bad = out / "reviews" / "bad.jsonl"
    bad.write_text(good.read_text().replace('"accepted"', '"praised"'))
    assert "review: reviews/bad.jsonl: has 1 decision of an unknown kind" in only_fault(out)
    bad.write_bytes(good.read_bytes()[:-40])
    assert "review: reviews/bad.jsonl: cannot be read" in only_fault(out)
    before = {path: path.read_bytes() for path in (out / "reviews").iterdir()}
    assert repaired(out).counts == {Kind.REVIEW: 1}
    assert {path: path.read_bytes() for path in (out / "reviews").iterdir()} == before


def test_an_index_is_stale_damaged_or_has_other_images(out: Path) -> None:
    folder, index = OutFolder(out_path(out)), out / "index.sqlite"
    update_index(folder, index, quiet=True)
    assert not verify_table(out).harmless
    with sqlite3.connect(index) as database:
        database.execute("DELETE FROM images WHERE image_uri LIKE '%/000.jpg'")
    database.close()
    assert "index: index.sqlite: has 10 images, the table 11" in only_fault(out)
    index.write_bytes(index.read_bytes()[:9000])
    assert "index: index.sqlite: is damaged" in only_fault(out)
    after = repaired(out)
    assert (after.is_right, index.exists()) == (True, False)
    assert "renamed index.sqlite; `captioner index` builds it again" in after.repaired


def test_other_small_files_that_cannot_be_read_are_named(out: Path) -> None:
    for name in ("calibrations/a.json", "exports/b.sqlite", "runs/.swap.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("no")
    found = "\n".join(faults(out))
    assert "calibration: calibrations/a.json: cannot be read" in found
    assert "index: exports/b.sqlite: is damaged" in found
    assert "file: runs/.swap.json: cannot be read" in found


# A run at work, and the command


def test_beside_a_run_only_what_stands_still_is_verified(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts(out)[2].unlink()  # a part that is gone may be on its way
    shutil.copy(parts(out)[0], out / "captions" / "zz.parquet")
    run = OutFolder(out_path(out)).new_run()
    with locked(run):
        assert main(["verify", str(out)]) == 75
        assert f"run {run.run_id}, process" in capsys.readouterr().out
        change(parts(out)[0], with_values("error", "odd"))
        assert main(["verify", str(out), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["counts"], run.run_id in report["at_work"]) == ({"row": 1}, True)
        with pytest.raises(TemporaryError, match=run.run_id):
            repaired(out)


def test_the_command_prints_a_line_for_each_fault(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(out)]) == 0
    assert "verified   11 rows in 4 files\nwrong      nothing\n" in capsys.readouterr().out
    path = parts(out)[0]
    change(path, with_values("error", "odd"))
    assert main(["verify", str(out)]) == 1
    line, *summary = capsys.readouterr().out.splitlines()
    assert line.startswith(f"wrong  captions/{path.name}: status is ok, but there is an error")
    assert "wrong      1 row" in summary
    assert main(["verify", str(out / "captions")]) == 2
    for sample in ("0", "-1", "0%", "200%", "many", "1.5", ""):
        assert main(["verify", str(out), "--sample", sample]) == 2, sample
    assert CAPTIONER not in "".join(summary)
