"""The last choice of a search: among finished hypotheses, one whose words are likely to be right.

The score of a hypothesis says how likely its words are as a sentence. The calibrated confidence of
its words also knows what the image shows, so it dislikes a thing that a fluent sentence made up.
"""

import math

import torch

from captioner.calibration import Calibration
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.signals import find_content_words, word_confidence

UNKNOWN = math.log(0.5)  # how sure a hypothesis without content words is taken to be


def rerank(
    hypotheses: Hypotheses,
    log_presence: torch.Tensor,
    log_prior: torch.Tensor,
    content: torch.Tensor,
    words: Calibration,
    weight: float,
) -> Hypotheses:
    """Return the B hypotheses of each image in the order of score and sureness.

    To each score, `weight` times the mean log-confidence of its content words is added, by the
    calibration of `words`. `log_presence` is [N, V], `log_prior` [V]; `content` bool [V] marks the
    content words.
    """
    n, b = hypotheses.scores.shape
    alone = Hypotheses(*(part.flatten(0, 1).unsqueeze(1) for part in hypotheses))  # [N * B, 1, ...]
    found = find_content_words(alone, log_presence, log_prior, content, sharing=b)
    sure = torch.from_numpy(word_confidence(words, found.signals)).log()
    totals = torch.zeros(n * b, dtype=sure.dtype).index_add_(0, found.images, sure)
    counts = torch.bincount(found.images, minlength=n * b)
    means = torch.where(counts > 0, totals / counts.clamp(min=1), UNKNOWN).view(n, b)
    order = (hypotheses.scores + weight * means).argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(n).unsqueeze(1)
    return Hypotheses(*(part[rows, order] for part in hypotheses))
