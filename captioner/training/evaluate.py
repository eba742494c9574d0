"""Evaluation: caption images and score the captions against references."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from captioner.beam_search import beam_search
from captioner.caption import Caption
from captioner.constraints import WordRules
from captioner.lstm_captioner import LstmCaptioner, SearchResult
from captioner.model import CaptionModel, WordPredictor
from captioner.search_options import SearchOptions
from captioner.training.acceptability import is_acceptable, require_stemmer
from captioner.training.dataset import Split, decode_split
from captioner.training.metrics import Diversity, Scores, diversity, require_metrics, score
from captioner.training.reliability import Reliability, reliability
from captioner.vocabulary import Vocabulary

SEARCH_BATCH = 50


@dataclass(frozen=True)
class Evaluation:
    """The quality of the captions of `images` images, and the speed of captioning.

    `images_per_second` covers decoding, encoder and beam search together, in one process.
    """

    captioner: str
    images: int
    scores: Scores
    diversity: Diversity
    images_per_second: float
    reliability: Reliability | None  # of the confidence; None without a calibration

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        meteor = self.scores.meteor
        rows = {
            "captioner": self.captioner,
            "images": f"{self.images:,}",
            **{f"BLEU-{n}": f"{getattr(self.scores, f'bleu{n}'):.3f}" for n in range(1, 5)},
            "METEOR": "- (needs Java)" if meteor is None else f"{meteor:.3f}",
            "ROUGE-L": f"{self.scores.rouge_l:.3f}",
            "CIDEr": f"{self.scores.cider:.3f}",
            "tokenizer": self.scores.tokenizer,
            "unique captions": f"{self.diversity.unique:.1%}",
            "most frequent one": f"{self.diversity.most_frequent:.1%}",
            "distinct words": f"{self.diversity.distinct_words:,}",
            **(_reliability_rows(self.reliability) if self.reliability else {}),
            "images/s": f"{self.images_per_second:.1f}",
        }
        return _aligned(rows)


def reliability_text(rows: Mapping[str, object], result: Reliability) -> str:
    """Format other values and the reliability of a confidence, one to a line."""
    return _aligned({**rows, **_reliability_rows(result)})


def _aligned(rows: Mapping[str, object]) -> str:
    return "\n".join(f"{name:<18} {value}" for name, value in rows.items())


def _reliability_rows(result: Reliability) -> dict[str, str]:
    auroc = "-" if result.auroc is None else f"{result.auroc:.3f}"
    return {
        "acceptable": f"{result.acceptable:.1%}",
        "of the surest 10%": f"{result.acceptable_at[0]:.1%}",
        "of the surest 20%": f"{result.acceptable_at[1]:.1%}",
        "of the surest 50%": f"{result.acceptable_at[4]:.1%}",
        "AUROC": auroc,
        "ECE": f"{result.ece:.3f} (by chance {result.ece_by_chance:.3f})",
        "Brier score": f"{result.brier:.3f}",
    }


def evaluate(captioner: LstmCaptioner, split: Split, batch_size: int = 32) -> Evaluation:
    """Caption every image of a split and score the captions against its references."""
    require_metrics()
    require_stemmer()
    start = time.perf_counter()
    pixels = decode_split(split, captioner.image_size, threads=torch.get_num_threads())
    captions = caption_pixels(captioner, pixels, batch_size)
    seconds = time.perf_counter() - start
    texts = [caption.text for caption in captions]
    return Evaluation(
        captioner=captioner.identity,
        images=len(texts),
        scores=score(texts, split.captions),
        diversity=diversity(texts),
        images_per_second=len(texts) / seconds,
        reliability=_reliability(captions, split.captions),
    )


def _reliability(
    captions: list[Caption], references: Sequence[Sequence[str]]
) -> Reliability | None:
    confidence = [caption.confidence for caption in captions if caption.confidence is not None]
    if len(confidence) < len(captions):
        return None
    acceptable = is_acceptable([caption.text for caption in captions], references)
    return reliability(np.array(confidence), acceptable)


def caption_pixels(
    captioner: LstmCaptioner, pixels: npt.NDArray[np.uint8], batch_size: int = 32
) -> list[Caption]:
    """Caption decoded images, uint8 [N, S, S, 3]."""
    results = search_pixels(captioner, pixels, batch_size)
    return [caption for result in results for caption in captioner.captions(result)]


def search_pixels(
    captioner: LstmCaptioner, pixels: npt.NDArray[np.uint8], batch_size: int = 32
) -> Iterator[SearchResult]:
    """Yield the search results of decoded images, uint8 [N, S, S, 3], batch by batch."""
    starts = range(0, len(pixels), batch_size)
    for start in tqdm(starts, desc="caption", unit="batch", disable=None, leave=False):
        batch = np.array(pixels[start : start + batch_size])  # may be memory-mapped
        yield captioner.find_hypotheses(captioner.encode(batch))


@torch.inference_mode()
def caption_features(
    model: CaptionModel,
    vocabulary: Vocabulary,
    features: npt.NDArray[np.float16],
    device: torch.device,
) -> list[str]:
    """Return the best caption of each image, by default options, as words joined by spaces."""
    rules, options = WordRules.of_vocabulary(vocabulary, device), SearchOptions()
    captions = []
    for start in range(0, len(features), SEARCH_BATCH):
        grid = torch.from_numpy(np.array(features[start : start + SEARCH_BATCH])).float().to(device)
        bias = model.logit_bias(model.presence(grid), rules.content, options)
        predictor = WordPredictor(model.decoder, grid, bias)
        found = beam_search(predictor, len(grid), options, device, rules)
        captions += [" ".join(vocabulary.decode(ids)) for ids in found.tokens[:, 0].tolist()]
    return captions
