"""Fitting a calibration again to what people decided."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captioner.calibration import SIGNALS, Calibration, read_calibration
from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint
from captioner.training.evaluation.recalibrate import MIN_JUDGEMENTS, recalibrate, save_recalibrated
from captioner.training.evaluation.reliability import reliability

COUNT = len(SIGNALS)
CALIBRATION = Calibration(
    "good", "here", list(SIGNALS), [0.0] * COUNT, [1.0] * COUNT, [1.0] + [0.0] * (COUNT - 1), 0.0
)


def judged(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signals, their confidence, and outcomes of captions that are far too confident."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, COUNT)) * 2
    true = 1 / (1 + np.exp(-(0.5 * values[:, 0] - 2)))
    return values, CALIBRATION.confidence(values), random.random(count) < true


def test_a_recalibrated_confidence_agrees_with_people_where_the_old_one_did_not() -> None:
    _, confidence, acceptable = judged(2000)
    fitted = recalibrate(CALIBRATION, confidence, acceptable)
    others, before, outcomes = judged(5000, seed=1)
    assert reliability(before, outcomes).ece > 0.2
    assert reliability(fitted.confidence(others), outcomes).ece < 0.03
    assert "person" in fitted.acceptable
    assert fitted.data.startswith("2000 captions judged by people")
    assert fitted.for_precision(0.3).precision >= 0.3


def test_the_order_of_captions_stays() -> None:
    values, confidence, acceptable = judged(500)
    fitted = recalibrate(CALIBRATION, confidence, acceptable)
    assert (np.argsort(fitted.confidence(values)) == np.argsort(confidence)).all()


def test_captions_of_confidence_zero_or_one_do_no_harm() -> None:
    _, confidence, acceptable = judged(500)
    confidence[:5], confidence[5:10] = 0, 1
    assert np.isfinite(recalibrate(CALIBRATION, confidence, acceptable).bias)


@pytest.mark.parametrize("outcome", [True, False])
def test_too_few_or_equal_judgements_are_refused(outcome: bool) -> None:
    _, confidence, acceptable = judged(MIN_JUDGEMENTS - 1)
    with pytest.raises(CaptionerError, match="review at least 50 captions"):
        recalibrate(CALIBRATION, confidence, acceptable)
    _, confidence, acceptable = judged(500)
    with pytest.raises(CaptionerError, match="right and wrong ones"):
        recalibrate(CALIBRATION, confidence, np.full(500, outcome))


def test_a_recalibrated_model_differs_in_its_calibration_alone(
    tmp_path: Path, calibrated_checkpoint: Path
) -> None:
    calibration = read_calibration(calibrated_checkpoint)
    assert calibration is not None
    directory = tmp_path / "new" / "model"
    save_recalibrated(calibrated_checkpoint, replace(calibration, bias=0.5), directory)
    assert load_checkpoint(directory).calibration == replace(calibration, bias=0.5)
    for path in calibrated_checkpoint.iterdir():
        same = (directory / path.name).read_bytes() == path.read_bytes()
        assert same == (path.name != "calibration.json")
    with pytest.raises(CaptionerError, match="exists: name a new folder"):
        save_recalibrated(calibrated_checkpoint, calibration, directory)
    assert [path.name for path in directory.parent.iterdir()] == ["model"]
