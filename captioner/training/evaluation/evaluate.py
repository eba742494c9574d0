"""Evaluation: scores of captions against references, and of their confidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from captioner.calibration import Floats
from captioner.captioner import Captioner
from captioner.lstm.beam_search import beam_search
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.constraints import WordRules
from captioner.lstm.model import CaptionModel, LogitBias, WordPredictor
from captioner.lstm.vocabulary import Vocabulary
from captioner.lstm.wording import SearchResult
from captioner.search_options import SearchOptions
from captioner.training.evaluation.acceptability import right_words
from captioner.training.evaluation.metrics import Diversity, Scores, diversity, score
from captioner.training.evaluation.reliability import Reliability, reliability
from captioner.training.evaluation.spoken import Spoken
from captioner.training.progress import bar

SEARCH_BATCH = {"cpu": 50, "cuda": 250}


@dataclass(frozen=True)
class Evaluation:
    """The quality of the captions of `images` images, and the speed of captioning.

    Of these, `rejected` ones got no caption; they count for `acceptable` alone, the share of images
    with an acceptable caption. `images_per_second` covers decoding, encoder and search together, in
    one process. `reliability_beside` is that of the confidence beside another captioner's caption,
    `reliability_words` that of the confidence of single content words.
    """

    captioner: str
    images: int
    rejected: int
    scores: Scores
    diversity: Diversity
    images_per_second: float
    acceptable: float
    reliability: Reliability | None  # of the confidence; None without a calibration
    reliability_beside: Reliability | None
    reliability_words: Reliability | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        meteor = self.scores.meteor
        rows = {
            "captioner": self.captioner,
            "images": f"{self.images:,}",
            "rejected captions": f"{self.rejected:,}",
            **{f"BLEU-{n}": f"{getattr(self.scores, f'bleu{n}'):.3f}" for n in range(1, 5)},
            "METEOR": "- (needs Java)" if meteor is None else f"{meteor:.3f}",
            "ROUGE-L": f"{self.scores.rouge_l:.3f}",
            "CIDEr": f"{self.scores.cider:.3f}",
            "tokenizer": self.scores.tokenizer,
            "unique captions": f"{self.diversity.unique:.1%}",
            "most frequent one": f"{self.diversity.most_frequent:.1%}",
            "distinct words": f"{self.diversity.distinct_words:,}",
            "acceptable": f"{self.acceptable:.1%}",
            **(_reliability_rows(self.reliability) if self.reliability else {}),
            "images/s": f"{self.images_per_second:.1f}",
        }
        text = _aligned(rows)
        if beside := self.reliability_beside:
            text += f"\n\nbeside the first\n{_aligned(_reliability_rows(beside))}"
        if words := self.reliability_words:
            count = sum(part.captions for part in words.bins)
            right = {"number": f"{count:,}", "right": f"{words.acceptable:.1%}"}
            text += f"\n\ncontent words\n{_aligned({**right, **_reliability_rows(words)})}"
        return text


def reliability_text(rows: Mapping[str, object], result: Reliability) -> str:
    """Format other values and the reliability of a confidence, one to a line."""
    acceptable = {"acceptable": f"{result.acceptable:.1%}"}
    return _aligned({**rows, **acceptable, **_reliability_rows(result)})


def _aligned(rows: Mapping[str, object]) -> str:
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def _reliability_rows(result: Reliability) -> dict[str, str]:
    auroc = "-" if result.auroc is None else f"{result.auroc:.3f}"
    return {
        "of the surest 10%": f"{result.acceptable_at[0]:.1%}",
        "of the surest 20%": f"{result.acceptable_at[1]:.1%}",
        "of the surest 50%": f"{result.acceptable_at[4]:.1%}",
        "AUROC": auroc,
        "ECE": f"{result.ece:.3f} (by chance {result.ece_by_chance:.3f})",
        "Brier score": f"{result.brier:.3f}",
    }


class Confidence(NamedTuple):
    """The confidences [N] of captions, alone and beside the first ones, and [M] of their words.

    None without.
    """

    alone: Floats | None
    beside: Floats | None
    words: Floats | None


def given_confidence(captioner: Captioner, spoken: Spoken) -> Confidence:
    """Return the confidences that a captioner gave its captions and their words."""
    captions, first = spoken.captions, spoken.first
    alone = [caption.confidence for caption in captions]
    words = [word.confidence for caption in captions for word in caption.words]
    if first is None:
        return Confidence(_array(alone), None, _array(words))
    beside = [
        captioner.confidence_beside(caption, other.text, other.confidence)
        for caption, other in zip(captions, first, strict=True)
    ]
    return Confidence(_array(alone), _array(beside), _array(words))


def _array(values: Sequence[float | None]) -> Floats | None:
    known = [value for value in values if value is not None]
    return np.array(known) if known and len(known) == len(values) else None


def evaluate(spoken: Spoken, confidence: Confidence) -> Evaluation:
    """Score what a captioner said against the references, and its confidence."""
    texts = [caption.text for caption in spoken.captions]
    images = len(texts) + spoken.rejected
    right = right_words(spoken.captions, spoken.references)
    outcomes = (spoken.acceptable, spoken.acceptable, right)
    alone, beside, words = (
        None if values is None else reliability(values, outcome)
        for values, outcome in zip(confidence, outcomes, strict=True)
    )
    return Evaluation(
        captioner=spoken.captioner,
        images=images,
        rejected=spoken.rejected,
        scores=score(texts, spoken.references),
        diversity=diversity(texts),
        images_per_second=spoken.images_per_second,
        acceptable=float(spoken.acceptable.sum()) / images,
        reliability=alone,
        reliability_beside=beside,
        reliability_words=words,
    )


def search_pixels(
    captioner: LstmCaptioner, pixels: npt.NDArray[np.uint8], batch_size: int = 32
) -> Iterator[SearchResult]:
    """Yield the search results of decoded images, uint8 [N, S, S, 3], batch by batch."""
    for start in bar(range(0, len(pixels), batch_size), "caption", " batches"):
        batch = np.array(pixels[start : start + batch_size])  # may be memory-mapped
        yield captioner.find_hypotheses(captioner.encode(batch))


@torch.inference_mode()
def caption_features(
    model: CaptionModel,
    vocabulary: Vocabulary,
    features: npt.NDArray[np.float16],
    device: torch.device,
) -> list[str]:
    """Return the best caption of each image, by default options, as words joined by spaces.

    Raises FloatingPointError if its score is not finite.
    """
    rules, options = WordRules.of_vocabulary(vocabulary, device), SearchOptions()
    captions = []
    size = SEARCH_BATCH[device.type]
    for start in bar(range(0, len(features), size), "caption", " batches"):
        grid = torch.from_numpy(np.array(features[start : start + size])).to(device).float()
        bias = LogitBias.of(model.presence, model.presence(grid), rules.content, options)
        predictor = WordPredictor(model.decoder, grid, bias)
        found = beam_search(predictor, len(grid), options, device, rules)
        if not found.scores[:, 0].isfinite().all():
            raise FloatingPointError("scores of captions are not finite")
        captions += [" ".join(vocabulary.decode(ids)) for ids in found.tokens[:, 0].tolist()]
    return captions
