"""Metrics of captions, computed by pycocoevalcap as in the literature, and their diversity."""

import importlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from captioner.errors import CaptionerError, MissingExtraError
from captioner.lstm.vocabulary import tokenize

# The input of pycocoevalcap: the tokenised sentences of each image, by its index.
Sentences = dict[int, list[str]]


@dataclass(frozen=True)
class Scores:
    """Corpus scores in [0, 1], except CIDEr in [0, 10] (1.0 is often printed as "100").

    Without Java, `meteor` is None and `tokenizer` is "simple", else "ptb"; scores with different
    tokenizers are not comparable.
    """

    bleu1: float
    bleu2: float
    bleu3: float
    bleu4: float
    rouge_l: float
    cider: float
    meteor: float | None
    tokenizer: str


@dataclass(frozen=True)
class Diversity:
    """The diversity of captions: two shares of them in [0, 1], and a number of words."""

    unique: float  # distinct captions
    most_frequent: float  # occurrences of the most frequent caption
    distinct_words: int


def require_metrics() -> None:
    """Raise MissingExtraError now if the metrics could not be computed later."""
    _extra("cider.cider", "Cider")


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Score one caption per image against its references.

    CIDEr takes its document frequencies from `references`. Raises MissingExtraError without
    pycocoevalcap, and CaptionerError if Java is installed but fails.
    """
    _require_aligned(hypotheses, references)
    java = shutil.which("java") is not None
    tokens = _ptb_tokens if java else _simple_tokens
    ours, theirs = _split(tokens([*([one] for one in hypotheses), *references]), len(hypotheses))
    bleu, _ = _extra("bleu.bleu", "Bleu")(4).compute_score(theirs, ours, verbose=0)
    rouge_l, _ = _extra("rouge.rouge", "Rouge")().compute_score(theirs, ours)
    cider_score, _ = _extra("cider.cider", "Cider")().compute_score(theirs, ours)
    bleu1, bleu2, bleu3, bleu4 = map(float, bleu)
    return Scores(
        bleu1=bleu1,
        bleu2=bleu2,
        bleu3=bleu3,
        bleu4=bleu4,
        rouge_l=float(rouge_l),
        cider=float(cider_score),
        meteor=_meteor(theirs, ours) if java else None,
        tokenizer="ptb" if java else "simple",
    )


def cider(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> npt.NDArray[np.float64]:
    """Return the CIDEr of each image, float64 [N], with the simple tokenizer: fast, without Java.

    Raises MissingExtraError without pycocoevalcap.
    """
    _require_aligned(hypotheses, references)
    tokens = _simple_tokens([*([one] for one in hypotheses), *references])
    ours, theirs = _split(tokens, len(hypotheses))
    _, per_image = _extra("cider.cider", "Cider")().compute_score(theirs, ours)
    return np.asarray(per_image, dtype=np.float64)


def diversity(captions: Sequence[str]) -> Diversity:
    """Measure how varied captions are, ignoring case and punctuation."""
    if not captions:
        raise ValueError("no captions to compare")
    words = [tuple(tokenize(caption)) for caption in captions]
    counts = Counter(words)
    return Diversity(
        unique=len(counts) / len(words),
        most_frequent=max(counts.values()) / len(words),
        distinct_words=len({word for caption in counts for word in caption}),
    )


def _require_aligned(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(
            f"{len(hypotheses)} captions, references of {len(references)} images: each image "
            "needs one caption and at least one reference"
        )


def _extra(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)
    except ImportError as error:
        raise MissingExtraError(
            "metrics need pycocoevalcap: pip install 'captioner[train]'"
        ) from error


def _split(sentences: Sentences, count: int) -> tuple[Sentences, Sentences]:
    """Split the sentences after the first `count` images; number both parts from 0."""
    first = {index: sentences[index] for index in range(count)}
    return first, {index: sentences[count + index] for index in range(len(sentences) - count)}


def _simple_tokens(captions: Sequence[Sequence[str]]) -> Sentences:
    return {
        index: [" ".join(tokenize(caption)) for caption in of_image]
        for index, of_image in enumerate(captions)
    }


def _ptb_tokens(captions: Sequence[Sequence[str]]) -> Sentences:
    """Tokenize in one call, because each call starts a Java virtual machine."""
    entries = {
        # One line per caption: a line break of any kind would shift all captions after it.
        index: [{"caption": " ".join(caption.split())} for caption in of_image]
        for index, of_image in enumerate(captions)
    }
    try:
        tokens: Sentences = _extra("tokenizer.ptbtokenizer", "PTBTokenizer")().tokenize(entries)
    except OSError as error:  # it writes a file beside its own
        raise CaptionerError(
            f"the Java tokenizer of pycocoevalcap failed ({error}): make its folder writable, or "
            "take java off the PATH to score with the simple tokenizer"
        ) from error
    if any(len(tokens.get(index, ())) != len(of_image) for index, of_image in entries.items()):
        raise CaptionerError(
            "the Java tokenizer of pycocoevalcap failed: repair java, or take it off the PATH to "
            "score with the simple tokenizer"
        )
    return tokens


def _meteor(references: Sentences, hypotheses: Sentences) -> float:
    scorer = _extra("meteor.meteor", "Meteor")()
    try:
        with scorer.meteor_p:  # closes its pipes and waits until it exits
            return float(scorer.compute_score(references, hypotheses)[0])
    except (OSError, ValueError) as error:
        raise CaptionerError(
            "METEOR failed: repair java, or take it off the PATH to score without METEOR"
        ) from error
    finally:
        # After a failure the scorer still holds its lock and would deadlock when deleted.
        if scorer.lock.locked():
            scorer.lock.release()
