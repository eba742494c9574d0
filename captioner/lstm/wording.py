"""LstmWording: what a captioner of this package does before and after the network's part.

It needs no device and no weights but the prior of words, so that a process may do it for which
another one searches.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captioner.calibration import SIGNALS, WORD_SIGNALS, Calibration, Floats
from captioner.caption import Alternative, Caption, Embeddings, Word
from captioner.captioner import Captioner, Measure
from captioner.house_rules import HouseRules
from captioner.identity import computing, identity
from captioner.image import DecodedImage, decode_image
from captioner.lstm.back_off import BackOff
from captioner.lstm.beam_search import Hypotheses
from captioner.lstm.checkpoint import Checkpoint
from captioner.lstm.constraints import NEG_INF, WordRules
from captioner.lstm.rerank import rerank
from captioner.lstm.signals import compute_signals, find_content_words, word_confidence
from captioner.lstm.vocabulary import EOS, capitalised, sentence
from captioner.model_directory import model_identity, own_weights
from captioner.search_options import SearchOptions

Pixels = npt.NDArray[np.uint8]


class SearchResult(NamedTuple):
    """The result of a search over N images, on the CPU."""

    hypotheses: Hypotheses
    log_presence: Tensor  # float32 [N, V], see WordPresence


class Found(NamedTuple):
    """What the network found in N images: the result of a search, and embeddings if wanted."""

    result: SearchResult
    embeddings: Embeddings | None = None

    @classmethod
    def of(cls, arrays: Sequence[npt.NDArray[Any]]) -> "Found":
        """Return what has these `arrays`."""
        searched = len(Hypotheses._fields) + 1
        *parts, log_presence = map(torch.from_numpy, arrays[:searched])
        result = SearchResult(Hypotheses(*parts), log_presence)
        return cls(result, *arrays[searched:])

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        """All of it, as arrays [N, ...]."""
        parts = [part.numpy() for part in (*self.result.hypotheses, self.result.log_presence)]
        return parts if self.embeddings is None else [*parts, self.embeddings]


def joined(parts: Sequence[Found]) -> Found:
    """Return what was found in the images of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Found.of(
        [np.concatenate(of_all) for of_all in zip(*(p.arrays for p in parts), strict=True)]
    )


class LstmWording(Captioner):
    """A captioner of this package without its network; embeds images only if wanted."""

    def __init__(
        self, checkpoint: Checkpoint, search: SearchOptions, *, precision: str, embeddings: bool
    ) -> None:
        self.options = search
        self.precision = precision
        # Its vocabulary has one language.
        self.house_rules = HouseRules(search.max_characters, language=None)
        self.embeddings = embeddings
        self.image_size = checkpoint.model.config.image_size  # the side in pixels of its images
        self.vocabulary = checkpoint.vocabulary
        rules = WordRules.of_vocabulary(checkpoint.vocabulary, torch.device("cpu"))
        self._log_prior = checkpoint.model.presence.log_prior.cpu()  # [V]
        self._content = rules.content  # [V]
        self._content_weights = -self._log_prior * self._content  # [V]
        self._back_off = BackOff(checkpoint.vocabulary, rules.lengths, search.max_characters)
        self.calibration = checkpoint.calibration
        name = model_identity(checkpoint.name, checkpoint.fingerprint, search)
        weights = own_weights(checkpoint.directory, precision)
        self.identity = identity(name, precision, weights)

    @property
    def settings(self) -> dict[str, object]:
        """The search options, the calibration and more as JSON values, to record with captions."""
        calibration = self.calibration.to_json() if self.calibration else None
        search = asdict(self.options)
        return {"search": search, "calibration": calibration, **computing(self.precision)}

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        """Squeeze an image into a square of `image_size`; see Captioner."""
        return decode_image(image, self.image_size, self.limits)

    @abstractmethod
    def find(self, pixels: Sequence[Pixels], measure: Measure) -> Found:
        """Return what the network finds in images, uint8 RGB [image_size, image_size, 3] each.

        The hypotheses are in the order of the search. Raises CaptionerError.
        """

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Caption]:
        """Return the captions of prepared images; see Captioner."""
        found = self.find([image.pixels for image in images], measure)
        with measure("search"):
            captions = list(self.captions(self.chosen(found.result)))
        if found.embeddings is None:
            return captions
        return [replace(c, embedding=v) for c, v in zip(captions, found.embeddings, strict=True)]

    def chosen(self, found: SearchResult) -> SearchResult:
        """Return the result of a search as `rerank` leaves it, by the calibration that there is."""
        return self.rerank(found, self.calibration.words if self.calibration else None)

    def rerank(self, found: SearchResult, words: Calibration | None) -> SearchResult:
        """Return the result with each image's hypotheses in the order that `words` give them.

        That is the calibration of words; without one, the order stays. Doubtful nouns of the first
        hypotheses have given way to general ones.
        """
        if words is None:
            return found
        if weight := self.options.sureness_weight:
            hypotheses = rerank(*found, self._log_prior, self._content, words, weight)
            found = found._replace(hypotheses=hypotheses)
        content = find_content_words(*found, self._log_prior, self._content)
        confidence = torch.from_numpy(word_confidence(words, content.signals))
        doubtful = confidence.argsort()[: (confidence < self.options.back_off_below).sum()]
        places = torch.stack([content.images, content.places], 1)[doubtful].tolist()
        return SearchResult(*self._back_off(*found, places))

    def signals(self, found: SearchResult) -> Floats:
        """Return the signals from which confidence is computed: float64 [N, len(SIGNALS)]."""
        return compute_signals(*found, self._content_weights)

    def words(self, found: SearchResult) -> list[tuple[Word, ...]]:
        """Return the content words of each image's caption, with a confidence if calibrated."""
        images, places, tokens, signals = find_content_words(*found, self._log_prior, self._content)
        part = self.calibration.words if self.calibration else None
        confidence = word_confidence(part, signals).tolist() if part else None
        words: list[list[Word]] = [[] for _ in found.log_presence]
        vocabulary = self.vocabulary.words
        rows = zip(images.tolist(), places.tolist(), tokens.tolist(), signals.tolist(), strict=True)
        for m, (n, place, token, values) in enumerate(rows):
            text = vocabulary[token]
            words[n].append(
                Word(
                    text if place else capitalised(text),
                    confidence[m] if confidence else None,
                    dict(zip(WORD_SIGNALS, values, strict=True)),
                )
            )
        return [tuple(of_caption) for of_caption in words]

    def captions(self, found: SearchResult) -> Iterator[Caption]:
        """Yield a caption for each image of a search."""
        signals = self.signals(found)
        confidence = self.calibration.confidence(signals).tolist() if self.calibration else None
        words = self.words(found)
        tokens, _, log_probs, scores = (part.tolist() for part in found.hypotheses)
        best_log_probs = found.hypotheses.token_log_probs[:, 0].tolist()
        values = signals.tolist()
        for n in range(len(tokens)):
            length = tokens[n][0].index(EOS) + 1
            texts: dict[str, Alternative] = {}  # hypotheses may differ in "a" and "an" only
            for ids, log_prob, score in zip(tokens[n], log_probs[n], scores[n], strict=True):
                if score > NEG_INF:
                    text = sentence(self.vocabulary.decode(ids))
                    texts.setdefault(text, Alternative(text, log_prob))
            yield Caption(
                text=next(iter(texts)),
                confidence=confidence[n] if confidence else None,
                log_prob=log_probs[n][0],
                token_log_probs=tuple(best_log_probs[n][:length]),
                alternatives=tuple(texts.values())[1:],
                words=words[n],
                signals=dict(zip(SIGNALS, values[n], strict=True)),
            )
