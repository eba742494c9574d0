"""Confidence of any captioner: from its own signals, and from what another one said.

Importing this module does not import torch.
"""

from collections.abc import Mapping

import numpy as np

from captioner.agreement import agreement
from captioner.calibration import OWN_SIGNALS, Calibration, Floats
from captioner.caption import Caption
from captioner.lstm.vocabulary import tokenize

_LEAST = 1e-6  # of a probability, and of its complement, so that the odds are finite


def confidence_of(calibration: Calibration | None, caption: Caption) -> float | None:
    """Return the confidence of a caption by its own signals.

    None without a calibration, or if the caption lacks one of its signals.
    """
    return None if calibration is None else _probability(calibration, own_signals(caption))


def confidence_beside(
    calibration: Calibration | None, caption: Caption, other: str, confidence: float | None
) -> float | None:
    """Return the confidence of a caption in the light of another captioner's caption.

    It is the caption's own without a calibration for this, or if a signal is missing.
    """
    if calibration is None or calibration.beside is None:
        return caption.confidence
    signals = signals_beside(caption, other, confidence)
    beside = _probability(calibration.beside, signals)
    return caption.confidence if beside is None else beside


def own_signals(caption: Caption) -> dict[str, float]:
    """Return the signals of a caption by itself, by name: OWN_SIGNALS, and what it brings."""
    words = float(len(tokenize(caption.text)))
    if not (log_probs := caption.token_log_probs):
        return {"words": words, **caption.signals}
    values = (sum(log_probs) / len(log_probs), sum(log_probs), min(log_probs), words)
    return {**dict(zip(OWN_SIGNALS, values, strict=True)), **caption.signals}


def signals_beside(caption: Caption, other: str, confidence: float | None) -> dict[str, float]:
    """Return those of BESIDE_SIGNALS that a caption has beside another one, by name."""
    signals = {"agreement": agreement(caption.text, other)}
    if caption.confidence is not None:
        signals["log_odds"] = _log_odds(caption.confidence)
    if confidence is not None:
        signals["other_log_odds"] = _log_odds(confidence)
    return signals


def log_odds(probability: Floats) -> Floats:
    """Return the logarithms of the odds, which are finite even for 0 and 1."""
    clipped = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.log(clipped / (1 - clipped))


def _log_odds(probability: float) -> float:
    return float(log_odds(np.array(probability)))


def _probability(calibration: Calibration, signals: Mapping[str, float]) -> float | None:
    if not signals.keys() >= set(calibration.signals):
        return None
    values = np.array([[signals[name] for name in calibration.signals]])
    return float(calibration.confidence(values)[0])
