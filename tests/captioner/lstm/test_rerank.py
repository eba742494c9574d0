"""The last choice of a search: by scores and by how sure the words are."""

import torch

from captioner.calibration import WORD_SIGNALS, Calibration
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.rerank import rerank
from captioner.lstm.vocabulary import EOS, PAD

NEVER = float("-inf")
CONTENT = torch.tensor([False] * 5 + [True] * 2)
LOG_PRIOR = torch.full((7,), -2.0)
LIKELY, UNLIKELY = 5, 6
PRESENCE = torch.tensor([0.1] * 5 + [0.9, 0.1]).log()
# Sureness is presence: a word that is there to 90% is right to 90%.
BY_PRESENCE = Calibration(
    *("right", "here", ["presence"], [0.5], [0.4], [2.197], 0.0),
    words=None,
)


def hypotheses(scores: list[list[float]]) -> Hypotheses:
    """For each image: one with an unlikely word, one with a likely one, one without any."""
    n = len(scores)
    tokens = torch.tensor([[4, UNLIKELY, EOS], [4, LIKELY, EOS], [4, EOS, PAD]])
    log_probs = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -2.1, -0.5], [-1.0, -4.0, 0.0]])
    return Hypotheses(
        tokens.expand(n, -1, -1),
        log_probs.expand(n, -1, -1),
        log_probs.sum(1).expand(n, -1),
        torch.tensor(scores),
    )


def order(scores: list[list[float]], weight: float) -> list[list[int]]:
    """Return the places that hypotheses had before."""
    before = hypotheses(scores)
    after = rerank(
        before, PRESENCE.expand(len(scores), -1), LOG_PRIOR, CONTENT, BY_PRESENCE, weight
    )
    return [
        [scores[n].index(score) for score in of_image]
        for n, of_image in enumerate(after.scores.tolist())
    ]


def test_a_sure_word_outweighs_a_slightly_better_score() -> None:
    assert set(BY_PRESENCE.signals) < set(WORD_SIGNALS)
    assert order([[-1.0, -1.5, -3.0]], weight=0.8) == [[1, 0, 2]]
    assert order([[-1.0, -4.0, -9.0]], weight=0.8) == [[0, 1, 2]]
    assert order([[-1.0, -1.5, -3.0]], weight=0.1) == [[0, 1, 2]]


def test_each_image_is_judged_by_itself_and_all_parts_move_together() -> None:
    scores = [[-1.0, -1.5, -3.0], [-1.0, -4.0, -9.0]]
    assert order(scores, weight=0.8) == [[1, 0, 2], [0, 1, 2]]
    before = hypotheses(scores)
    after = rerank(before, PRESENCE.expand(2, -1), LOG_PRIOR, CONTENT, BY_PRESENCE, 0.8)
    for moved, part in zip(after, before, strict=True):
        assert torch.equal(moved[0], part[0, [1, 0, 2]])
        assert torch.equal(moved[1], part[1])


def test_unfinished_hypotheses_stay_last() -> None:
    assert order([[-1.0, -1.5, NEVER]], weight=0.8) == [[1, 0, 2]]
    assert order([[-9.0, NEVER, NEVER]], weight=0.8)[0][0] == 0
