"""Signals: the features of a caption from which its confidence is computed."""

import torch
from torch import Tensor

from captioner.calibration import Floats
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.vocabulary import PAD


def compute_signals(hypotheses: Hypotheses, log_presence: Tensor, weights: Tensor) -> Floats:
    """Return the SIGNALS of each image's best hypothesis: float64 [N, len(SIGNALS)].

    Mean, sum and minimum are over the natural log-probabilities of its tokens, EOS included. The
    last three are means over its content words, weighted by `weights` [V] (zero for all other
    words): of their log-probabilities, and of `log_presence` [N, V] as shares and as logarithms.
    """
    log_probs, tokens = hypotheses.token_log_probs[:, 0].double(), hypotheses.tokens[:, 0]  # [N, T]
    length = (tokens != PAD).sum(1).clamp(min=1)
    total = log_probs.sum(1)
    shares = weights.double()[tokens]
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-9)
    present = log_presence.double().gather(1, tokens)
    columns = (
        total / length,
        total,
        log_probs.amin(1),
        length - 1,
        (shares * log_probs).sum(1),
        (shares * present.exp()).sum(1),
        (shares * present).sum(1),
    )
    return torch.stack([column.double() for column in columns], dim=1).cpu().numpy()
