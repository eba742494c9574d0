"""What the captions of a run are like, measured from its rows."""

from pathlib import Path

import pytest

from captioner.jobs.quality import measure as module
from captioner.jobs.quality.measure import measure
from captioner.jobs.table.layout import RunFolder
from tests.support.rows import row, write_rows

RUN, OTHER = "20260102T000000-000000-0000", "20260101T000000-000000-0000"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Return a run whose rows are in two files of its own, and in one of another run."""
    first = [row(f"/{n}.jpg", run_id=RUN, caption="A dog.", confidence=0.5) for n in range(6)]
    second = [
        row("/a.jpg", run_id=RUN, caption="A cat.", confidence=0.01),
        row("/b.jpg", run_id=RUN, caption="A cat.", confidence=None),
        row("/c.jpg", run_id=RUN, status="timeout", caption=None, confidence=None, error="late"),
    ]
    third = [
        row("/d.jpg", run_id=RUN, caption="A horse.", confidence=0.09),
        *(row(f"/x{n}.jpg", run_id=OTHER, caption="Not of this run.") for n in range(9)),
    ]
    write_rows(tmp_path, first, f"{RUN}-000000")
    write_rows(tmp_path, second, f"{RUN}-000001")
    return RunFolder(write_rows(tmp_path, third, f"{OTHER}-000000"), RUN)


def test_the_rows_of_the_run_alone_are_measured(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses = {"ok": 9, "timeout": 1}
    for batch in (65_536, 2):
        monkeypatch.setattr(module, "BATCH_ROWS", batch)
        found = measure(run, statuses, tmp_path, replaced=True)
        assert found == {
            "images": 10,
            "captions": 9,
            "unique": pytest.approx(3 / 9, abs=1e-6),
            "top_caption": pytest.approx(6 / 9, abs=1e-6),
            "most_frequent": "A dog.",
            "confidence": pytest.approx((6 * 0.5 + 0.01 + 0.09) / 8, abs=1e-6),
            "low_confidence": pytest.approx(1 / 8),
            "failed": {"timeout": pytest.approx(0.1)},
        }
    assert measure(run, {"ok": 8}, tmp_path, replaced=False)["captions"] == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions"]


def test_a_run_without_captions_has_no_shares(tmp_path: Path) -> None:
    failed = [row("/a.jpg", run_id=RUN, status="denied", caption=None, confidence=None)]
    out = write_rows(tmp_path, failed, f"{RUN}-000000")
    found = measure(RunFolder(out, RUN), {"denied": 1}, tmp_path, replaced=False)
    assert (found["captions"], found["unique"], found["confidence"]) == (0, None, None)
    assert found["failed"] == {"denied": 1.0}


def test_many_captions_are_counted_exactly(tmp_path: Path) -> None:
    rows = [row(f"/{n}.jpg", run_id=RUN, caption=f"A {n % 3000}.") for n in range(5000)]
    out = write_rows(tmp_path, rows, f"{RUN}-000000")
    found = measure(RunFolder(out, RUN), {"ok": 5000}, tmp_path, replaced=False)
    assert (found["unique"], found["top_caption"]) == (0.6, pytest.approx(2 / 5000))
