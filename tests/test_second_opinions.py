"""Second opinions: another captioner's, about doubtful captions alone."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.cli.plan_text import preview_text
from captioner.jobs.errors import UsageError
from captioner.jobs.preview import preview_job
from captioner.jobs.rows.doubt import Asked, doubts_of
from captioner.jobs.run import run_passes
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder
from captioner.schemas.job_report import JobReport
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import decide
from tests.support.tables import read_table

IMAGES = 12
Rows = dict[str, dict[str, Any]]


@pytest.fixture
def job(job: JobConfig, calibrated_checkpoint: Path) -> JobConfig:
    """Return a job that captions twelve photographs with confidences around 0.5."""
    write_photographs(Path(job.source), IMAGES)
    return replace(job, checkpoint=calibrated_checkpoint, device="cpu", partition_size=5)


@pytest.fixture
def first(job: JobConfig) -> Rows:
    """Return the rows of the first captioner, by file name, after running the job."""
    run_job(job)
    return rows(job)


def second(job: JobConfig, **values: Any) -> JobConfig:
    """Return the job of a second captioner: the same model with another beam."""
    return replace(job, beam_size=7, **values)


def rows(job: JobConfig) -> Rows:
    table = read_table(Path(job.out)).to_pylist()
    by_name = {Path(row["image_uri"]).name: row for row in table}
    assert len(by_name) == len(table)
    return by_name


def below(rows: Rows, limit: float) -> set[str]:
    return {name for name, row in rows.items() if row["confidence"] < limit}


def least(rows: Rows, count: int) -> set[str]:
    return set(sorted(rows, key=lambda name: rows[name]["confidence"])[:count])


def asked_about(job: JobConfig, before: Rows) -> set[str]:
    """Return the images with a second opinion, and check that all other rows are as before."""
    after = rows(job)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    for name in changed:
        then = before[name]
        assert after[name]["captioner"] != then["captioner"]
        assert after[name]["former"] == {
            key: then[key] for key in ("caption", "confidence", "captioner")
        }
    return changed


def middle(rows: Rows) -> float:
    return sorted(row["confidence"] for row in rows.values())[IMAGES // 2]


def test_only_captions_below_the_limit_are_asked_about_and_only_once(
    job: JobConfig, first: Rows
) -> None:
    limit = middle(first)
    report = run_job(second(job, redo_below=limit))
    assert asked_about(job, first) == below(first, limit)
    assert (report.doubted, report.images, report.kept_stale) == (6, 6, 0)
    assert run_job(second(job, redo_below=limit)).planned == 0


def test_the_least_certain_share_stays_the_same_when_the_run_is_repeated(
    job: JobConfig, first: Rows
) -> None:
    run_job(second(job, redo_share="25%"))
    assert asked_about(job, first) == least(first, 3)
    assert run_job(second(job, redo_share=0.25)).planned == 0
    run_job(second(job, redo_share="50%"))
    assert asked_about(job, first) == least(first, 6)


def test_a_limit_takes_the_least_certain_ones(job: JobConfig, first: Rows) -> None:
    report = run_job(second(job, redo_below=1.0, limit=2))
    assert asked_about(job, first) == least(first, 2)
    assert (report.doubted, report.postponed) == (12, 10)


def test_a_condition_chooses_among_the_doubtful_ones(job: JobConfig, first: Rows) -> None:
    run_job(second(job, redo_below=1.0, where="image_uri LIKE '%/00%.jpg'"))
    assert asked_about(job, first) == {f"{number:03d}.jpg" for number in range(10)}
    with pytest.raises(UsageError, match="no_column"):
        run_job(second(job, redo_below=1.0, where="no_column = 1"))


@pytest.mark.parametrize("decision", ["accepted", "edited", "rejected", "decorative"])
def test_what_a_person_decided_about_is_never_sent(
    job: JobConfig, first: Rows, decision: str
) -> None:
    row = first["003.jpg"]
    out = OutFolder(out_path(job.out))
    text = {"edited": "By hand.", "accepted": row["caption"], "decorative": ""}.get(decision)
    decide(out, row["image_uri"], decision, text, image_sha256=row["image_sha256"])
    run_job(second(job, redo_below=1.0))
    assert asked_about(job, first) == first.keys() - {"003.jpg"}


def test_no_image_is_sent_twice_whichever_captioner_is_asked(job: JobConfig, first: Rows) -> None:
    run_job(second(job, redo_share=0.5))
    then = rows(job)
    assert run_job(replace(job, redo_below=1.0)).planned == 0  # the first captioner itself
    run_job(replace(job, beam_size=2, redo_below=1.0))
    after = rows(job)
    assert all(after[name] == then[name] for name in least(first, 6))
    run_job(replace(job, beam_size=2, redo_below=1.0, stale="redo"))
    formers = [row["former"]["captioner"] for row in rows(job).values()]
    assert set(formers) == {first["000.jpg"]["captioner"]}


def test_without_a_table_there_is_nothing_to_give_an_opinion_about(job: JobConfig) -> None:
    with pytest.raises(UsageError, match="has no captions yet"):
        run_job(second(job, redo_below=1.0))


def test_new_and_changed_images_are_left_to_a_plain_run(job: JobConfig, first: Rows) -> None:
    write_photographs(Path(job.source), IMAGES + 1)
    (Path(job.source) / "000.jpg").write_bytes(photograph(99))
    report = run_job(second(job, redo_below=1.0))
    assert (report.new, report.changed, report.postponed) == (1, 1, 2)
    assert asked_about(job, first) == first.keys() - {"000.jpg"}
    report = run_job(job)
    assert (report.images, rows(job)["000.jpg"]["former"]) == (2, None)


def test_bytes_that_changed_unnoticed_have_no_former_caption(
    job: JobConfig, tmp_path: Path
) -> None:
    photos = sorted(Path(job.source).iterdir())
    manifest = tmp_path / "list.csv"
    manifest.write_text("image_uri,image_version\n" + "".join(f"{p},1\n" for p in photos))
    job = replace(job, source=manifest)
    run_job(job)
    before = rows(job)
    photos[3].write_bytes(photograph(99))
    run_job(second(job, redo_below=1.0))
    after = rows(job)
    assert after["003.jpg"]["image_sha256"] != before["003.jpg"]["image_sha256"]
    assert [name for name, row in after.items() if row["former"] is None] == ["003.jpg"]


def test_a_captioner_with_other_settings_is_asked_again_only_if_wanted(
    job: JobConfig, first: Rows
) -> None:
    run_job(second(job, redo_share=0.5))
    other = replace(job, beam_size=2, redo_share=0.5)
    assert run_job(other).planned == 0
    assert run_job(replace(other, stale="redo")).images == IMAGES // 2
    twice = {name: row["former"] for name, row in rows(job).items() if row["former"]}
    assert twice.keys() == least(first, 6)


def test_a_second_opinion_is_not_stale_to_the_first_captioner(job: JobConfig, first: Rows) -> None:
    run_job(second(job, redo_below=1.0))
    compact(out=job.out, quiet=True)
    report = run_job(replace(job, stale="redo"))
    assert (report.planned, report.kept_stale) == (0, 0)
    assert len(asked_about(job, first)) == IMAGES


def test_wanting_embeddings_leaves_second_opinions_alone(job: JobConfig, first: Rows) -> None:
    run_job(second(job, redo_share=0.25))
    report = run_job(replace(job, embeddings=True))
    assert report.lacking == IMAGES - 3
    assert {name for name, row in rows(job).items() if row["former"]} == least(first, 3)


def test_an_image_that_has_gone_is_declined_and_does_not_stand_in_the_way(
    job: JobConfig, first: Rows, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.txt"
    manifest.write_text("".join(f"{path}\n" for path in sorted(Path(job.source).iterdir())))
    (gone,) = least(first, 1)
    (Path(job.source) / gone).unlink()
    opinion = second(job, source=manifest, redo_below=1.0, limit=1)
    report = run_job(opinion)
    assert (report.declined, report.failed, report.exit_code) == (1, 0, 0)
    row = rows(job)[gone]
    assert row["declined"]["error"] and row | {"declined": None} == first[gone]
    assert run_job(opinion).statuses == {"ok": 1}
    assert run_job(replace(opinion, stale="redo")).statuses == {"ok": 1}


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_table_may_have_more_files_than_a_process_may_open(job: JobConfig, first: Rows) -> None:
    (part, *_) = (Path(job.out) / "captions").iterdir()
    for number in range(300):
        shutil.copy(part, part.with_name(f"copy-{number}.parquet"))
    before = open_files()
    with TemporaryDirectory() as folder:
        out = OutFolder(out_path(job.out))
        doubts = doubts_of(out, Asked("other@1"), Path(folder))
        assert len(doubts) > 300 and open_files() < before + 20


def test_one_job_can_do_both_passes(job: JobConfig) -> None:
    both = replace(
        job, second={"checkpoint": str(job.checkpoint), "beam_size": 7, "redo_share": 0.5}
    )
    report = run_job(both)
    assert (report.images, report.second and report.second.images) == (IMAGES, IMAGES // 2)
    assert JobReport.from_json(report.to_json()) == report
    doubtful = {name for name, row in rows(job).items() if row["former"]}
    write_photographs(Path(job.source), IMAGES + 2)
    again = list(run_passes(both))
    assert [each.images for each in again] == [2, 1]
    assert doubtful < {name for name, row in rows(job).items() if row["former"]}


def test_a_plan_previews_both_passes(job: JobConfig, first: Rows) -> None:
    write_photographs(Path(job.source), IMAGES + 3)
    opinion = {"checkpoint": str(job.checkpoint), "beam_size": 7, "redo_share": 0.5}
    preview = preview_job(replace(job, second=opinion), sample=0)
    assert preview.images == 3 and preview.second and preview.second.images == IMAGES // 2
    assert "second pass, about the rows" in preview_text(preview)


def test_the_second_pass_reads_standard_input_from_the_first(
    job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{path}\n" for path in sorted(Path(job.source).iterdir()))
    stdin = io.TextIOWrapper(io.BytesIO(lines.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    second_pass = {"checkpoint": str(job.checkpoint), "beam_size": 7, "redo_below": 1.0}
    report = run_job(replace(job, source="-", second=second_pass))
    assert report.second and report.second.images == IMAGES


def test_a_wrong_condition_of_the_second_pass_ends_the_job_before_the_first(
    job: JobConfig, first: Rows
) -> None:
    wrong = {"checkpoint": "flickr8k", "redo_below": 0.5, "where": "no_column = 1"}
    with pytest.raises(UsageError, match="no_column"):
        next(run_passes(replace(job, second=wrong)))


def test_the_command_tells_of_the_second_pass_even_if_images_of_the_first_failed(
    job: JobConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(job.source) / "damaged.jpg").write_bytes(b"damaged")
    job_file = tmp_path / "job.toml"
    opinion = {"checkpoint": str(job.checkpoint), "beam_size": 7, "redo_share": 0.5}
    both = replace(job, quiet=False, max_failures=0, second=opinion)
    job_file.write_text(both.to_toml())
    assert main(["run", "--config", str(job_file)]) == 3
    assert "6 for a second opinion" in capsys.readouterr().out


def test_without_the_second_captioner_the_first_pass_stays(
    job: JobConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"checkpoint": str(tmp_path / "no such model"), "redo_below": 1.0}
    preview = preview_job(replace(job, second=missing), sample=0)
    assert preview.images == IMAGES and "no such model" in (preview.second_problem or "")
    passes = run_passes(replace(job, second=missing))
    assert next(passes).images == IMAGES
    assert "the second pass cannot run: no checkpoint" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"the first pass stays: no checkpoint .*no such model"):
        next(passes)
    assert len(rows(job)) == IMAGES


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"redo_below": 0}, "redo_below must be above 0"),
        ({"redo_below": 1.5}, "redo_below must be a number from 0 to 1"),
        ({"redo_share": "120%"}, "redo_share must be a share"),
        ({"redo_share": "some"}, "redo_share must be a share"),
        ({"redo_below": 0.5, "redo_share": "20%"}, "redo_below must be omitted if redo_share"),
        ({"where": "confidence < 1"}, "where needs redo_below or redo_share"),
        ({"redo_below": 0.5, "force": True}, "force does not go with redo_below"),
        ({"redo_below": 0.5, "prune": True}, "prune does not go with redo_below"),
        ({"max_requests": 5}, "max_requests is for a checkpoint that begins"),
        ({"checkpoint": "openai:x", "max_cost": 5}, "max_cost needs prices"),
        ({"prices": {"water": 1}}, "prices must be a table of input, output, request"),
        ({"prices": {"input": -1}}, "prices must be a table"),
        ({"second": {"redo_below": 0.5}}, "second must be a table with checkpoint"),
        ({"second": {"checkpoint": "flickr8k"}}, "second must be a table with checkpoint"),
        ({"second": {"checkpoint": "x", "redo_below": 3}}, "in the table second, redo_below"),
        ({"second": {"redo_bellow": 0.5}}, "in the table second: unknown key .*'redo_below'"),
        ({"checkpoint": "openai:\udcff"}, "checkpoint has characters"),
        ({"prices": {"input": 10**400}}, "prices must be a table"),
    ],
)
def test_impossible_second_opinions_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        JobConfig(source="photos", out="out", **values)


def test_a_manifests_own_column_of_an_older_table_keeps_its_values(
    job: JobConfig, first: Rows
) -> None:
    for path in Path(job.out).glob("captions/*.parquet"):
        table = pq.read_table(path).drop_columns(["former", "declined", "word_confidence"])
        pq.write_table(table.append_column("former", pa.array(["mine"] * len(table))), path)
    limit = middle(first)
    run_job(second(job, redo_below=limit))
    after = rows(job)
    second_opinions = {name for name, row in after.items() if row["former"]}
    assert second_opinions == below(first, limit)
    assert {row["source_former"] for row in after.values()} == {"mine"}
