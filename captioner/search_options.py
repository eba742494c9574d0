"""SearchOptions: the settings of beam search. Importing this module does not import torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SearchOptions:
    """Settings of beam search; lengths are in words, `max_characters` in characters.

    `length_penalty` is alpha of Wu et al. 2016: 0 ranks by log-probability alone, greater values
    favour longer captions. No n-gram of `block_ngram` words occurs twice in a caption (0 allows
    repetition). `max_characters` includes the full stop; longer captions are never considered.
    `presence_weight` scales the gain of words that the image makes likelier than the prior (at 0
    the decoder alone decides). `repeat_penalty` is subtracted from the logit of a content word that
    the caption already contains. `sureness_weight` scales the mean log-confidence of its words in
    the choice among finished hypotheses, where words are calibrated (at 0 the search decides).
    Nouns whose confidence is below `back_off_below` give way to more general ones (at 0 none does).
    """

    beam_size: int = 3
    min_length: int = 3
    max_length: int = 20
    max_characters: int = 125
    length_penalty: float = 1.2
    block_ngram: int = 3
    presence_weight: float = 0.9
    repeat_penalty: float = 2.0
    sureness_weight: float = 1.0
    back_off_below: float = 0.5

    def __post_init__(self) -> None:
        for name in ("beam_size", "min_length", "max_length", "max_characters", "block_ngram"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, not {self.beam_size}")
        if not 0 <= self.min_length <= self.max_length or self.max_length < 1:
            raise ValueError(
                "lengths must satisfy 0 <= min_length <= max_length and max_length >= 1, "
                f"not {self.min_length} and {self.max_length}"
            )
        if self.max_characters < MIN_CHARACTERS:
            raise ValueError(
                f"max_characters must be at least {MIN_CHARACTERS}, not {self.max_characters}"
            )
        weights = ("presence_weight", "repeat_penalty", "sureness_weight", "back_off_below")
        for name in ("length_penalty", "block_ngram", *weights):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, not {value}")


MIN_CHARACTERS = 20  # room for any one word
