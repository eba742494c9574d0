"""How the confidence did on what people decided, by the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.calibration import read_calibration
from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.publish.judgements import read_judgements
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.review import Decision
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows
from tests.support.tables import read_table


def test_only_decisions_about_a_captions_words_are_judgements(tmp_path: Path) -> None:
    out = write_rows(tmp_path, [row("/a.jpg")])
    decide(out, "/a.jpg", "accepted", "A picture of a.", confidence=0.9)
    decide(out, "/b.jpg", "edited", "A dog.", confidence=0.4)
    decide(out, "/c.jpg", "rejected", confidence=0.1)
    decide(out, "/d.jpg", "decorative", "")
    decide(out, "/e.jpg", "edited", "A dog.", confidence=None)
    decide(out, "/f.jpg", "edited", "A dog.", caption=None)
    judged = read_judgements(tmp_path)
    assert judged.confidence.tolist() == [0.9, 0.4, 0.1]
    assert judged.acceptable.tolist() == [True, False, False]


@pytest.fixture
def reviewed(tmp_path: Path, job: JobConfig, calibrated_checkpoint: Path) -> Path:
    """Return an OUT with 60 captions by the calibrated model, each reviewed."""
    write_photographs(tmp_path / "photos", 60)
    run_job(replace(job, checkpoint=calibrated_checkpoint))
    out = OutFolder(out_path(tmp_path / "out"))
    template = decide(out, "/gone.jpg", "decorative", "")
    reviews = [
        replace(
            template,
            image_uri=each["image_uri"],
            image_sha256=each["image_sha256"],
            decision=Decision.REJECTED if number % 3 else Decision.ACCEPTED,
            text=None if number % 3 else each["caption"],
            caption=each["caption"],
            confidence=each["confidence"],
            captioner=each["captioner"],
        )
        for number, each in enumerate(read_table(tmp_path / "out").to_pylist())
    ]
    ReviewWriter(out, "ann", "page").add(reviews)
    return tmp_path / "out"


def test_reviews_are_evaluated_and_fit_a_new_model(
    tmp_path: Path,
    reviewed: Path,
    calibrated_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", "--reviews", str(reviewed), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["captions"], result["reliability"]["acceptable"]) == (60, pytest.approx(1 / 3))
    assert main(["evaluate", "--reviews", str(reviewed)]) == 0
    assert "\nacceptable         33.3%\n" in capsys.readouterr().out
    model = tmp_path / "recalibrated"
    arguments = ["evaluate", "--reviews", str(reviewed), "--recalibrate", str(model)]
    assert main([*arguments, "--checkpoint", str(calibrated_checkpoint)]) == 0
    assert "60 captions judged by people" in capsys.readouterr().out
    fitted = read_calibration(model)
    assert fitted is not None
    report = run_job(
        JobConfig(tmp_path / "photos", tmp_path / "again", model, workers=1, quiet=True)
    )
    assert report.captioned == 60
    confidence = read_table(tmp_path / "again")["confidence"].to_numpy()
    assert confidence.mean() == pytest.approx(1 / 3, abs=0.05)


def test_decisions_about_another_models_captions_do_not_fit_this_one(
    reviewed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--reviews", str(reviewed), "--recalibrate", str(tmp_path / "new")]
    assert main(arguments) == 2
    assert "no decisions of captions whose confidence comes from this" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--images", "a"], ["--reviews", "out", "--images", "a"], ["--recalibrate", "new"]],
)
def test_evaluate_needs_images_with_captions_or_reviews(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *arguments]) == 2
    assert "--reviews" in capsys.readouterr().err
