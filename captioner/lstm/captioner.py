"""LstmCaptioner: the captioner of this package, a CNN with an attention LSTM."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captioner.calibration import SIGNALS, WORD_SIGNALS, Calibration, Floats
from captioner.caption import Alternative, Caption, Embeddings, Word
from captioner.captioner import Captioner, Measure
from captioner.device import choose_device, stack_on, to_cpu
from captioner.errors import CaptionerError
from captioner.house_rules import HouseRules
from captioner.identity import computing, identity
from captioner.image import DecodedImage, decode_image
from captioner.lstm.back_off import BackOff
from captioner.lstm.beam_search import Hypotheses, beam_search
from captioner.lstm.checkpoint import Checkpoint, load_checkpoint
from captioner.lstm.constraints import NEG_INF, WordRules
from captioner.lstm.inference.folded import FoldedDecoder
from captioner.lstm.inference.fused import FusedEncoder
from captioner.lstm.model import LogitBias, WordPredictor
from captioner.lstm.rerank import rerank
from captioner.lstm.signals import compute_signals, find_content_words, word_confidence
from captioner.lstm.vocabulary import EOS, capitalised, sentence
from captioner.model_directory import find_finished, model_identity
from captioner.options import CaptionerOptions
from captioner.precision import check_precision, precision_of
from captioner.search_options import SearchOptions

# A search starts thousands of kernels on a GPU; that takes the same time for few images.
BATCH_SIZES = {"cpu": 32, "cuda": 1024}
MOST_ENCODED = 256  # at once: more are no faster, and their activations take most of the memory

Pixels = npt.NDArray[np.uint8]


class SearchResult(NamedTuple):
    """The result of a search over N images, on the CPU."""

    hypotheses: Hypotheses
    log_presence: Tensor  # float32 [N, V], see WordPresence


class LstmCaptioner(Captioner):
    """A model, ready on a device, with its search options; embeds images only if wanted.

    It takes the model of its checkpoint over, and converts it to its precision.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        search: SearchOptions,
        *,
        precision: str,
        embeddings: bool = False,
    ) -> None:
        self.device = device
        self.batch_size = BATCH_SIZES[device.type]
        self._most_at_once = sys.maxsize  # images: of more, a GPU has no memory
        self.options = search
        self.precision = precision
        # Its vocabulary has one language.
        self.house_rules = HouseRules(search.max_characters, language=None)
        self.embeddings = embeddings
        model, int8 = checkpoint.model.to(device), checkpoint.int8_for(precision)
        dtype = torch.float32 if int8 else getattr(torch, precision)  # int8: of what stays
        self._detected = model.encoder.detected
        with torch.inference_mode():
            self.encoder = FusedEncoder(model.encoder, dtype, int8)
            self.decoder = FoldedDecoder(model.decoder, dtype, int8=int8 is not None)
        self.image_size = model.config.image_size  # the side in pixels of what `encode` takes
        self.presence = model.presence
        self.vocabulary = checkpoint.vocabulary
        self.rules = WordRules.of_vocabulary(checkpoint.vocabulary, device)
        self._log_prior, self._content = to_cpu(self.presence.log_prior, self.rules.content)  # [V]
        self._content_weights = -self._log_prior * self._content  # [V]
        lengths = self.rules.lengths.cpu()
        self._back_off = BackOff(checkpoint.vocabulary, lengths, search.max_characters)
        self.calibration = checkpoint.calibration
        name = model_identity(checkpoint.name, checkpoint.fingerprint, search)
        self.identity = identity(name, self.precision)

    @classmethod
    def open(cls, options: CaptionerOptions) -> "LstmCaptioner":
        """Load a bundled checkpoint by name, or a model directory.

        Raises CheckpointError if it is missing, damaged or unfinished, CaptionerError if the device
        is missing or has no instructions for the precision.
        """
        device = choose_device(options.device)
        precision, embeddings = precision_of(options), options.embeddings
        assert precision  # only servers have none
        check_precision(precision, device.type)
        checkpoint = load_checkpoint(find_finished(options.checkpoint), options.calibration)
        return cls(checkpoint, device, options.search, precision=precision, embeddings=embeddings)

    @property
    def settings(self) -> dict[str, object]:
        """The search options, the calibration and more as JSON values, to record with captions."""
        calibration = self.calibration.to_json() if self.calibration else None
        search = asdict(self.options)
        return {"search": search, "calibration": calibration, **computing(self.precision)}

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        """Squeeze an image into a square of `image_size`; see Captioner."""
        return decode_image(image, self.image_size, self.limits)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Caption]:
        """Return the captions of prepared images; see Captioner.

        If they take too much of a GPU's memory, which others may use, too, batches of this size are
        halved from then on, whoever chose it.
        """
        half = (len(images) + 1) // 2
        if len(images) <= self._most_at_once:
            try:
                return self._answer(images, measure)
            except torch.cuda.OutOfMemoryError:
                if len(images) == 1:
                    raise
            torch.cuda.empty_cache()  # after the exception, which would keep tensors
            self._most_at_once = half
            self.batch_size = min(self.batch_size, half)
        return [*self.answer(images[:half], measure), *self.answer(images[half:], measure)]

    def _answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Caption]:
        with measure("encode"):
            features = self.encode([image.pixels for image in images])
        with measure("search"):
            captions = self.search(features)
        if not self.embeddings:
            return captions
        with measure("encode"):  # after the search, which a GPU would otherwise wait for
            vectors = self.embed(features)
        return [replace(c, embedding=v) for c, v in zip(captions, vectors, strict=True)]

    @torch.inference_mode()
    def encode(self, pixels: Pixels | Sequence[Pixels]) -> Tensor:
        """Encode uint8 RGB [N, image_size, image_size, 3] to grid features [N, L, C]."""
        starts = range(0, len(pixels), MOST_ENCODED)
        # While a GPU computes one part, the next one is copied to it.
        parts = [
            self.encoder(stack_on(self.device, pixels[start : start + MOST_ENCODED]))
            for start in starts
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def embed(self, features: Tensor) -> Embeddings:
        """Return vectors of unit length that say what images look like, from grid features.

        float16 [N, C] for [N, L, C]: the mean over the grid, without the channels of a detector,
        which have another scale. The closer to 1 the scalar product of two, the more alike are the
        images.
        """
        pooled = features[..., : features.shape[2] - self._detected].float().mean(1)
        return torch.nn.functional.normalize(pooled, dim=1).half().cpu().numpy()

    @torch.inference_mode()
    def search(self, features: Tensor) -> list[Caption]:
        """Return a caption for each image, given grid features [N, L, C]."""
        return list(self.captions(self.find_hypotheses(features)))

    @torch.inference_mode()
    def find_hypotheses(self, features: Tensor) -> SearchResult:
        """Return the hypotheses of a beam search, given grid features [N, L, C]."""
        log_presence = self.presence(features)
        content = self.rules.content
        bias = LogitBias.of(self.presence, log_presence, content, self.options)
        predictor = WordPredictor(self.decoder, features, bias)
        found = beam_search(predictor, len(features), self.options, self.device, self.rules)
        *parts, log_presence = to_cpu(*found, log_presence)
        hypotheses = Hypotheses(*parts)
        if not hypotheses.scores[:, 0].isfinite().all():
            raise CaptionerError(
                f"numbers of this model are too large for {self.precision}: choose another "
                "precision, and if none will do, another checkpoint"
            )
        words = self.calibration.words if self.calibration else None
        return self.rerank(SearchResult(hypotheses, log_presence), words)

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
