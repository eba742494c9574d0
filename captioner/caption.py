"""Caption: what a captioner says about an image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Embeddings: TypeAlias = npt.NDArray[np.float16]  # [N, C], of unit length


@dataclass(frozen=True)
class Alternative:
    """Another finished hypothesis of the search; `log_prob` as that of a Caption."""

    text: str
    log_prob: float | None


@dataclass(frozen=True)
class Word:
    """A content word of a caption, as its text has it.

    `confidence` is the calibrated probability that it is right (None without a calibration of
    words); `signals` are what the captioner knows of it, by name (see Calibration).
    """

    text: str
    confidence: float | None = None
    signals: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Caption:
    """A caption of an image, with its confidence.

    `confidence` is a calibrated probability (None if the captioner has no calibration);
    `token_log_probs` are the natural log-probabilities under which the search ranks, one for each
    token and, unless a server leaves it out, one for the end of the sentence; `log_prob` is their
    sum. Both are None if the captioner does not tell them, or if the house rules took words away
    from its answer. `alternatives` are the next best
    hypotheses with a different text. `words` are the content words in their order, if the captioner
    tells about each and the house rules left the text as it was.
    `embedding` [C] says what the image looks like, if wanted.
    `signals` are what a captioner knows of its caption beyond these, by name (see Calibration).
    """

    text: str
    confidence: float | None = None
    log_prob: float | None = None
    token_log_probs: tuple[float, ...] | None = None
    alternatives: tuple[Alternative, ...] = ()
    words: tuple[Word, ...] = ()
    embedding: Embeddings | None = field(default=None, compare=False, repr=False)
    signals: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)
