"""What the confidence of a caption is computed from: signals of its image's hypotheses."""

import torch
from torch import Tensor

from captioner.beam_search import Hypotheses
from captioner.calibration import Floats
from captioner.vocabulary import PAD


def signals(hypotheses: Hypotheses, log_presence: Tensor, weights: Tensor) -> Floats:
    """The signals of each image's best hypothesis: [N, len(SIGNALS)], see calibration.py.

    Mean, sum and minimum are over the natural log-probabilities of its tokens, EOS included. The
    last three are means over its content words, weighted by how much each says: `weights` [V],
    zero for words that are none. Of `log_presence` [N, V] they take the words said, as shares and
    as logarithms.
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
