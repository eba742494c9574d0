"""Fitting the confidence of any captioner, alone and beside another one."""

from dataclasses import replace

import numpy as np
import pytest

from captioner.caption import Caption
from captioner.confidence import confidence_beside, confidence_of
from captioner.errors import CaptionerError
from captioner.training.evaluation.fit_confidence import fit_confidence
from captioner.training.evaluation.reliability import reliability
from captioner.training.evaluation.spoken import Spoken

COUNT = 3000
WORDS = np.array(["dog", "cat", "horse", "child", "woman", "boat", "hill", "kitchen", "tree"])


def spoken(seed: int, *, log_probs: bool = True, count: int = COUNT) -> Spoken:
    """Return what two captioners say of images whose truth is a word.

    Each says the true word with a probability that it knows, the second better than the first;
    wrong words differ.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(len(WORDS), size=count)

    def say(shape: float) -> tuple[list[Caption], np.ndarray]:
        known = random.beta(shape, shape, count)
        wrong = (truth + random.integers(1, len(WORDS), count)) % len(WORDS)
        right = random.random(count) < known
        texts = [f"A {word}." for word in WORDS[np.where(right, truth, wrong)]]
        odds = np.log(known / (1 - known))
        signs = [(float(value), -20.0) if log_probs else None for value in odds]
        return [
            Caption(text, float(p), token_log_probs=sign)
            for text, p, sign in zip(texts, known, signs, strict=True)
        ], right

    first, _ = say(30)
    captions, right = say(2)
    captions = [replace(caption, confidence=None) for caption in captions]
    return Spoken("second@0", captions, [["A thing."]] * count, right, 0, 1.0, first)


@pytest.mark.parametrize("log_probs", [True, False])
def test_confidence_is_right_on_other_images_and_better_with_agreement(log_probs: bool) -> None:
    calibration, _ = fit_confidence(spoken(0, log_probs=log_probs))
    assert calibration.beside is not None
    others = spoken(1, log_probs=log_probs)
    alone = [confidence_of(calibration, caption) for caption in others.captions]
    beside = [
        confidence_beside(calibration, replace(caption, confidence=own), one.text, one.confidence)
        for caption, own, one in zip(others.captions, alone, others.first or (), strict=True)
    ]
    by_itself = reliability(np.array(alone, float), others.acceptable)
    together = reliability(np.array(beside, float), others.acceptable)
    assert by_itself.ece < 0.05 and together.ece < 0.05
    assert by_itself.auroc and together.auroc and together.auroc > by_itself.auroc + 0.05
    assert (by_itself.auroc > 0.7) == log_probs


def test_the_confidences_of_a_fit_are_out_of_sample() -> None:
    random = np.random.default_rng(2)
    captions = [Caption("A dog.", token_log_probs=(value,)) for value in random.normal(size=60)]
    luck = random.random(60) < 0.5
    chance = Spoken("any@0", captions, [["A dog."]] * 60, luck, 0, 1.0, captions)
    calibration, (alone, beside, _) = fit_confidence(chance)
    for confidence in (alone, beside):
        assert confidence is not None and np.corrcoef(confidence, luck)[0, 1] < 0.15
    assert "out of sample" in calibration.data
    assert calibration.beside and "out of sample" in calibration.beside.data


def test_both_parts_have_operating_points() -> None:
    calibration, _ = fit_confidence(spoken(0))
    assert calibration.beside is not None
    alone, beside = (part.for_precision(0.8) for part in (calibration, calibration.beside))
    assert beside.coverage > alone.coverage > 0


def test_without_a_first_captioner_there_is_no_second_part() -> None:
    calibration, confidence = fit_confidence(replace(spoken(0), first=None))
    assert calibration.beside is None and confidence.beside is None


def test_a_first_captioner_without_confidence_still_agrees_or_not() -> None:
    said = spoken(0)
    first = [replace(caption, confidence=None) for caption in said.first or ()]
    calibration, _ = fit_confidence(replace(said, first=first))
    assert calibration.beside is not None
    assert calibration.beside.signals == ["log_odds", "agreement"]


def test_too_few_or_equal_captions_are_refused() -> None:
    with pytest.raises(CaptionerError, match="20 captions are too few to calibrate"):
        fit_confidence(spoken(0, count=20))
    said = spoken(0, count=60)
    with pytest.raises(CaptionerError, match="60 of 60 captions are acceptable"):
        fit_confidence(replace(said, acceptable=np.full(60, True)))
