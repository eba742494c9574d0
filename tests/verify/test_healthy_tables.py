"""`captioner verify` finds no fault in what runs, people and compactions leave."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.errors import UsageError
from captioner.jobs.publish.find.index import update_index
from captioner.jobs.publish.marking import mark_table
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.verify.findings import Kind, Verification
from captioner.jobs.verify.verify import verify_table
from tests.support.chat import Chat
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import decide
from tests.support.tables import read_table


@pytest.fixture
def job(job: JobConfig, calibrated_checkpoint: Path) -> JobConfig:
    """Return a job of twelve photographs, one of them twice, and two that have no caption."""
    photos = write_photographs(Path(job.source), 12)
    (photos / "copy.jpg").write_bytes(photograph(0))
    (photos / "torn.jpg").write_bytes(b"")
    (photos / "missing.jpg").symlink_to("nowhere.jpg")
    return replace(
        job, checkpoint=calibrated_checkpoint, device="cpu", partition_size=4, embeddings=True
    )


def right(out: object) -> Verification:
    """Verify a table, and assert that there is no fault and nobody at work."""
    found = verify_table(str(out))
    assert found.is_right, found.faults
    assert found.at_work is None
    return found


def manifest(job: JobConfig, name: str, **columns: Callable[[int], object]) -> JobConfig:
    path = Path(job.source).parent / name
    lines = [",".join(["image_uri", *columns])]
    lines += [
        ",".join([f"photos/{n:03d}.jpg", *(str(of(n)) for of in columns.values())])
        for n in range(12)
    ]
    path.write_text("\n".join(lines))
    return replace(job, source=path)


def test_what_runs_and_people_leave_has_no_fault(job: JobConfig) -> None:
    out, photos = Path(job.out), Path(job.source)
    run_job(replace(job, min_confidence=0.5))
    assert right(out).rows == 15
    row = read_table(out).to_pylist()[3]
    folder = OutFolder(out_path(out))
    decide(folder, row["image_uri"], "edited", "Mine.", image_sha256=row["image_sha256"])
    update_index(folder, out / "index.sqlite", quiet=True)
    assert not right(out).harmless
    (photos / "003.jpg").write_bytes(photograph(20))
    (photos / "004.jpg").unlink()
    (photos / "new.jpg").write_bytes(photograph(21))
    report = run_job(replace(job, prune=True, retry_failed=[]))
    assert (report.changed, report.new, report.pruned, report.retried) == (1, 1, 1, 1)
    kinds = [each.kind for each in right(out).harmless]
    assert {*kinds} == {Kind.EMBEDDING, Kind.INDEX}  # of images as they were, and of their rows
    run_job(replace(job, embeddings=False, beam_size=7, redo_share=0.5, target_precision=None))
    right(out)
    mark_table(out, 0.3)
    right(out)
    compact(out, quiet=True)
    assert right(out).files == 1
    run_job(replace(job, force=True))
    right(out)


def test_manifests_with_columns_of_their_own_have_no_fault(job: JobConfig) -> None:
    job = replace(job, embeddings=False)
    run_job(manifest(job, "a.csv", label=lambda n: n, former=lambda n: f"f{n}"))
    right(job.out)
    run_job(replace(manifest(job, "b.csv", place=lambda n: f"x{n}"), force=True))
    right(job.out)
    compact(str(job.out), quiet=True)
    assert right(job.out).rows == 12


def test_answers_of_a_server_have_no_fault(
    job: JobConfig, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    chat.behave("refusal", "null", "finish length", "says A photo of a dog on the grass.")
    run_job(replace(job, checkpoint="openai:any", embeddings=False))
    assert right(job.out).rows == 15
    assert "rejected" in read_table(Path(job.out))["status"].to_pylist()


def test_a_run_that_fails_leaves_nothing_to_note(job: JobConfig) -> None:
    run_job(replace(job, limit=3))
    with pytest.raises(UsageError, match="no_column"):
        run_job(replace(job, embeddings=False, redo_below=1.0, where="no_column = 1"))
    assert not right(job.out).harmless
