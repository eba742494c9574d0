"""Calibration: signals to a probability, and its operating points."""

import json
from dataclasses import replace

import numpy as np
import pytest

from captioner.calibration import SIGNALS, Calibration, OperatingPoint
from captioner.errors import CaptionerError


def test_confidence_is_a_probability_for_any_signals() -> None:
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration("good", "here", list(SIGNALS), ones, ones, ones, 0.0)
    extremes = np.array([[-1e9] * len(SIGNALS), [1e9] * len(SIGNALS)])
    low, high = calibration.confidence(extremes)
    assert 0 <= low < 0.01 and 0.99 < high <= 1


def test_a_calibration_of_other_signals_is_refused() -> None:
    with pytest.raises(ValueError, match="signals"):
        Calibration("good", "here", ["mood"], [0.0], [1.0], [1.0], 0.0)


def test_a_precision_selects_the_operating_point_of_greatest_coverage() -> None:
    points = [(0.9, 0.1, 0.95), (0.8, 0.2, 0.85), (0.7, 0.3, 0.9), (0.1, 1.0, 0.5)]
    ones = [1.0] * len(SIGNALS)
    calibration = Calibration(
        "good", "here", list(SIGNALS), ones, ones, ones, 0.0, [OperatingPoint(*p) for p in points]
    )
    assert calibration.for_precision(0.9) == (0.7, 0.3, 0.9)
    assert calibration.for_precision(0.4).coverage == 1
    with pytest.raises(CaptionerError, match=r"0\.99.*best known is 0\.950"):
        calibration.for_precision(0.99)


def test_a_calibration_of_words_is_a_part_that_others_do_not_have() -> None:
    ones = [1.0] * len(SIGNALS)
    words = Calibration(
        "right", "here", ["log_prob", "place"], [0.0] * 2, [1.0] * 2, [1.0] * 2, 0.0
    )
    without = Calibration("good", "here", list(SIGNALS), ones, ones, ones, 0.0)
    assert "words" not in without.to_json()
    calibration = replace(without, words=words)
    values = json.loads(json.dumps(calibration.to_json()))
    assert Calibration.from_json(values) == calibration
    assert Calibration.from_json(without.to_json()).words is None
    with pytest.raises(ValueError, match="signals of words must be of log_prob, presence"):
        replace(without, words=without)
