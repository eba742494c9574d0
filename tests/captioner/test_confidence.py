"""Confidence of any captioner, from its own signals and beside another caption."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from captioner.agreement import agreement
from captioner.calibration import Calibration
from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.confidence import confidence_beside, confidence_of, own_signals
from captioner.house_rules import HouseRules
from captioner.image import DecodedImage

DOG = "A brown dog runs across the grass."
PAIRS = [
    (DOG, "A dog is running on grass."),
    (DOG, "Two children play football."),
    ("Ein Hund läuft über die Wiese.", "Ein brauner Hund läuft auf einer Wiese."),
    ("一只棕色的狗在草地上奔跑", "一只狗在草地上"),
    ("A cat.", ""),
]

SPOKEN = Caption(DOG, log_prob=-3.0, token_log_probs=(-0.5, -2.0, -0.5))
SILENT = Caption(DOG)


def logistic(*signals: str, weight: float = 1.0) -> Calibration:
    """Return a calibration that adds up its signals."""
    count = len(signals)
    return Calibration(
        "good", "here", list(signals), [0.0] * count, [1.0] * count, [weight] * count, 0.0
    )


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_agreement_is_a_share_and_the_same_from_both_sides(one: str, other: str) -> None:
    assert 0 <= agreement(one, other) <= 1
    assert agreement(one, other) == agreement(other, one)


@pytest.mark.parametrize("text", [text for pair in PAIRS for text in pair])
def test_equal_captions_agree_fully_whatever_their_case_and_full_stop(text: str) -> None:
    assert agreement(text, text) == 1
    assert agreement(text, text.upper().removesuffix(".")) == pytest.approx(1)


def test_captions_without_a_word_in_common_but_function_words_do_not_agree() -> None:
    assert agreement(DOG, "Two children play with a ball on the beach.") == 0
    assert agreement(DOG, "") == 0


def test_the_more_two_captions_share_the_more_they_agree() -> None:
    same, near, far, other = (
        agreement(DOG, text)
        for text in (DOG, "A brown dog runs.", "A dog on a beach.", "A cat on a sofa.")
    )
    assert same > near > far > other


def test_other_forms_of_a_word_agree_in_part() -> None:
    assert 0 < agreement("A dog runs.", "Dogs running.") < 1


def test_confidence_follows_from_the_signals_that_the_calibration_names() -> None:
    sure = confidence_of(logistic("mean_log_prob"), SPOKEN)
    least = confidence_of(logistic("min_log_prob"), SPOKEN)
    assert sure == pytest.approx(1 / (1 + 2.718281828**1.0))
    assert least == pytest.approx(1 / (1 + 2.718281828**2.0))
    assert confidence_of(None, SPOKEN) is None


def test_a_captioner_without_log_probabilities_has_a_confidence_by_the_length() -> None:
    assert own_signals(SILENT) == {"words": 7.0}
    assert confidence_of(logistic("words", weight=0.1), SILENT) == pytest.approx(0.668, abs=1e-3)


def test_a_caption_that_lacks_a_signal_has_no_confidence() -> None:
    assert confidence_of(logistic("mean_log_prob", "words"), SILENT) is None


class Parrot(Captioner):
    """A captioner that says the same of every image."""

    settings, batch_size, house_rules = {}, 1, HouseRules()

    def __init__(self, answer: Caption, calibration: Calibration) -> None:
        self.said, self.calibration = answer, calibration

    def prepare(self, image: object) -> DecodedImage:
        raise NotImplementedError

    def answer(self, images: Sequence[DecodedImage], measure: object) -> list[Caption]:
        return [self.said for _ in images]


def test_a_caption_that_lost_words_keeps_the_signals_of_the_answer() -> None:
    answer = Caption(f"A photo of {DOG}", log_prob=-3.0, token_log_probs=(-0.5, -2.0, -0.5))
    image = DecodedImage(np.zeros((1, 1, 3), np.uint8), 1, 1, "PNG")
    (caption,) = Parrot(answer, logistic("mean_log_prob")).caption_batch([image])
    assert (caption.text, caption.token_log_probs) == (DOG, None)
    assert caption.confidence == confidence_of(logistic("mean_log_prob"), SPOKEN)
    assert own_signals(caption) == own_signals(SPOKEN)


def test_what_a_captioner_knows_of_its_caption_counts_as_a_signal() -> None:
    caption = replace(SILENT, signals={"presence": 2.0})
    assert confidence_of(logistic("presence"), caption) == pytest.approx(0.881, abs=1e-3)


def test_beside_another_caption_its_confidence_and_the_agreement_count() -> None:
    caption = replace(SILENT, confidence=0.5)
    signals = ("log_odds", "other_log_odds", "agreement")
    calibration = replace(logistic("words"), beside=logistic(*signals))
    same = confidence_beside(calibration, caption, DOG, 0.5)
    sure = confidence_beside(calibration, caption, DOG, 0.9)
    other = confidence_beside(calibration, caption, "Two cats.", 0.5)
    assert same and sure and sure > same > 0.7
    assert other == 0.5


def test_beside_another_caption_the_confidence_stays_where_nothing_can_be_said() -> None:
    caption = replace(SILENT, confidence=0.3)
    assert confidence_beside(None, caption, DOG, 0.9) == 0.3
    assert confidence_beside(logistic("words"), caption, DOG, 0.9) == 0.3
    calibration = replace(logistic("words"), beside=logistic("other_log_odds", "agreement"))
    assert confidence_beside(calibration, caption, DOG, None) == 0.3


def test_certainty_of_either_captioner_gives_a_finite_confidence() -> None:
    calibration = replace(logistic("words"), beside=logistic("log_odds", "other_log_odds"))
    for own in (0.0, 1.0):
        for other in (0.0, 1.0):
            beside = confidence_beside(calibration, replace(SILENT, confidence=own), DOG, other)
            assert beside is not None and 0 <= beside <= 1


def test_a_calibration_stays_the_same_as_json_with_and_without_a_second_part() -> None:
    alone = logistic("words")
    for calibration in (alone, replace(alone, beside=logistic("log_odds", "agreement"))):
        values = json.loads(json.dumps(calibration.to_json()))
        assert Calibration.from_json(values) == calibration
    assert "beside" not in alone.to_json()
