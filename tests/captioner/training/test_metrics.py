"""Metrics against values computed by hand, with and without Java; diversity."""

import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pycocoevalcap", reason="needs captioner[train]")
from pycocoevalcap.meteor import meteor

from captioner.errors import CaptionerError, MissingExtraError
from captioner.training.evaluation.metrics import Diversity, cider, diversity, score

REFERENCES = [
    ["A brown dog runs over the grass.", "The dog is running on a lawn."],
    ["Two men climb a steep rock.", "Climbers on a cliff with ropes."],
    ["A child plays with a red ball!", "A kid and its ball, on the beach."],
]
BEST = [captions[0] for captions in REFERENCES]


def test_a_reference_as_caption_has_the_highest_scores(no_java: None) -> None:
    scores = score(BEST, REFERENCES)
    for value in (scores.bleu1, scores.bleu2, scores.bleu3, scores.bleu4, scores.rouge_l):
        assert value == pytest.approx(1)


def test_scores_equal_those_computed_by_hand(no_java: None) -> None:
    scores = score(["The the cat"], [["The cat sat."]])
    assert scores.bleu1 == pytest.approx(2 / 3)  # "the" counts once
    assert scores.bleu2 == pytest.approx(math.sqrt(2 / 3 * 1 / 2))

    precision, recall, beta = 2 / 4, 2 / 3, 1.2  # the longest common subsequence is "a dog"
    expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert score(["a dog runs fast"], [["a dog sleeps"]]).rouge_l == pytest.approx(expected)


def test_cider_equals_the_value_computed_by_hand() -> None:
    # A word alone has one of the four orders of n-grams: 10 / 4 for a perfect match.
    assert cider(["Dog.", "bird"], [["dog"], ["cat"]]).tolist() == pytest.approx([2.5, 0])


def test_cider_ranks_captions_by_what_they_share_with_the_references() -> None:
    good = cider(BEST, REFERENCES)
    partly = cider(["A dog.", "Two men.", "A child."], REFERENCES)
    wrong = cider([*BEST[1:], BEST[0]], REFERENCES)
    assert good.shape == (3,)
    assert good.dtype == np.float64
    assert (good > partly).all()
    assert partly.sum() > wrong.sum()


def test_cider_of_the_corpus_is_the_mean_of_the_images(no_java: None) -> None:
    captions = ["A dog runs.", "Men on a cliff.", "A red ball."]
    assert score(captions, REFERENCES).cider == pytest.approx(cider(captions, REFERENCES).mean())


def test_scores_do_not_depend_on_case_and_punctuation(no_java: None) -> None:
    shouted = [f'"{caption.upper()}" ...' for caption in BEST]
    assert score(shouted, REFERENCES) == score(BEST, REFERENCES)


def test_without_java_the_simple_tokenizer_scores_without_meteor(no_java: None) -> None:
    scores = score(BEST, REFERENCES)
    assert scores.tokenizer == "simple"
    assert scores.meteor is None


@pytest.mark.skipif(shutil.which("java") is None, reason="needs java")
def test_with_java_the_tokenizer_is_ptb_and_meteor_is_computed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started = []

    class Recorded(meteor.Meteor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            started.append(self.meteor_p)

    monkeypatch.setattr(meteor, "Meteor", Recorded)
    scores = score([BEST[0], "", "line\r\nbreaks\u2028of a kind"], REFERENCES)
    assert scores.tokenizer == "ptb"
    assert scores.meteor is not None
    assert 0 < scores.meteor < 1
    assert [process.returncode for process in started] == [0]
    assert capfd.readouterr().out == ""


TOKENIZER_WORKS_METEOR_DIES = '#!/bin/sh\nif [ "$1" = -cp ]; then cat "$6"; else exit 1; fi\n'


@pytest.mark.parametrize(
    "script, message",
    [("#!/bin/sh\nexit 1\n", "tokenizer"), (TOKENIZER_WORKS_METEOR_DIES, "METEOR failed")],
)
def test_a_failing_java_is_an_error_and_does_not_hang(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text(script)
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(CaptionerError, match=message):
        score(BEST, REFERENCES)


def test_a_tokenizer_that_may_not_write_its_file_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "java").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("pycocoevalcap.tokenizer.ptbtokenizer.tempfile.NamedTemporaryFile", denied)
    with pytest.raises(CaptionerError, match="make its folder writable"):
        score(BEST, REFERENCES)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'captioner\[train\]'"):
        cider(BEST, REFERENCES)


@pytest.mark.parametrize(
    "captions, references", [([], []), (BEST[:2], REFERENCES), (["a", "b"], [["a"], []])]
)
@pytest.mark.parametrize("metric", [score, cider])
def test_captions_without_references_are_refused(
    metric: Any, captions: list[str], references: list[list[str]]
) -> None:
    with pytest.raises(ValueError, match="each image"):
        metric(captions, references)


def test_diversity_counts_different_captions_and_words() -> None:
    captions = ["A dog runs.", "a dog runs", "A cat.", "A dog runs!"]
    assert diversity(captions) == Diversity(unique=0.5, most_frequent=0.75, distinct_words=4)
