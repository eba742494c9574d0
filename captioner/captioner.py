"""Captioner: photographs -> captions. The public interface of the library."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeGuard, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from captioner.beam_search import Hypotheses, beam_search
from captioner.calibration import Floats
from captioner.checkpoint import Checkpoint, load_checkpoint
from captioner.constraints import NEG_INF, WordRules
from captioner.device import choose_device, compute_dtype
from captioner.errors import ImageError, UnreadableImage
from captioner.image import decode_image, square_pixels
from captioner.model import WordPredictor
from captioner.model_directory import identity
from captioner.search_options import SearchOptions
from captioner.signals import compute_signals
from captioner.vocabulary import EOS, sentence

CPU_TILE = 16  # images through the CNN at once: activations of more would not fit into the cache

Pixels: TypeAlias = npt.NDArray[np.uint8]
Embeddings: TypeAlias = npt.NDArray[np.float16]
Picture: TypeAlias = str | Path | bytes | Pixels | Image.Image
OnError: TypeAlias = Literal["raise", "skip"]


class SearchResult(NamedTuple):
    """The result of a search over N images, on the CPU."""

    hypotheses: Hypotheses
    log_presence: Tensor  # float32 [N, V], see WordPresence


@dataclass(frozen=True)
class Alternative:
    """Another finished hypothesis of the search."""

    text: str
    log_prob: float


@dataclass(frozen=True)
class Caption:
    """A caption of an image, with its confidence.

    `confidence` is a calibrated probability (None if the checkpoint has no calibration);
    `token_log_probs` are the natural log-probabilities under which the search ranks (of the decoder
    with its logit bias), one for each word and one for the end of the sentence; `log_prob` is their
    sum. `alternatives` are the next best hypotheses with a different text.
    """

    text: str
    confidence: float | None
    log_prob: float
    token_log_probs: tuple[float, ...]
    alternatives: tuple[Alternative, ...]


class Captioner:
    """A model, ready on a device, with its search options.

    >>> captioner = Captioner.load("flickr8k")
    >>> captioner.caption(["dog.jpg"])[0].text
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device, search: SearchOptions) -> None:
        self.device = device
        self.options = search
        self.model = checkpoint.model.to(device)
        dtype = compute_dtype(device)
        self.model.encoder.trunk.to(dtype)
        self.model.decoder.to(dtype)
        self.vocabulary = checkpoint.vocabulary
        self.rules = WordRules.of_vocabulary(checkpoint.vocabulary, device)
        self.calibration = checkpoint.calibration
        self.identity = identity(checkpoint.name, checkpoint.fingerprint, search)

    @classmethod
    def load(
        cls,
        name_or_directory: str | Path = "flickr8k",
        *,
        device: str = "auto",
        search: SearchOptions | None = None,
    ) -> "Captioner":
        """Load a bundled checkpoint by name, or a model directory; `device`: auto, cpu or cuda.

        Raises CheckpointError if it is missing or damaged, CaptionerError if the device is missing.
        """
        checkpoint = load_checkpoint(name_or_directory)
        return cls(checkpoint, choose_device(device), search or SearchOptions())

    @property
    def image_size(self) -> int:
        """The side in pixels of the square images that `encode` takes."""
        return self.model.config.image_size

    @property
    def settings(self) -> dict[str, object]:
        """The search options and the calibration as JSON values, to record with captions."""
        calibration = asdict(self.calibration) if self.calibration else None
        return {"search": asdict(self.options), "calibration": calibration}

    # A str is an iterable of str, too.
    @overload
    def caption(self, images: Picture, batch_size: int = ...) -> Caption: ...  # type: ignore[overload-overlap]

    @overload
    def caption(self, images: Iterable[Picture], batch_size: int = ...) -> list[Caption]: ...

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, batch_size: int = ..., *, on_error: OnError
    ) -> Caption | None: ...

    @overload
    def caption(
        self, images: Iterable[Picture], batch_size: int = ..., *, on_error: OnError
    ) -> list[Caption | None]: ...

    def caption(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int = 32,
        *,
        on_error: OnError = "raise",
    ) -> Caption | Sequence[Caption | None] | None:
        """Return the caption of an image, or a list with those of several, in their order.

        An image is a path, the bytes of an image file, a picture of PIL or uint8 RGB [H, W, 3].
        Raises ImageError for the first image that cannot be read; with `on_error="skip"`, None is
        in its place.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", not {on_error!r}')
        if _is_one(images):
            return self._captions([images], on_error)[0]
        captions: list[Caption | None] = []
        waiting = iter(cast(Iterable[Picture], images))
        while batch := list(islice(waiting, batch_size)):
            captions += self._captions(batch, on_error)
        return captions

    def _captions(self, images: Sequence[Picture], on_error: OnError) -> list[Caption | None]:
        """Return the captions of a batch."""
        pixels = [self._pixels_or_none(image, on_error) for image in images]
        readable = [each for each in pixels if each is not None]
        captions = iter(self.search(self.encode(np.stack(readable))) if readable else ())
        return [None if each is None else next(captions) for each in pixels]

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Tensor:
        """Encode uint8 RGB [N, image_size, image_size, 3] to grid features [N, L, C]."""
        images = torch.from_numpy(pixels).to(self.device)
        tile = CPU_TILE if self.device.type == "cpu" else len(images)
        return torch.cat([self.model.encoder(part) for part in torch.split(images, tile)])

    @torch.inference_mode()
    def embed(self, features: Tensor) -> Embeddings:
        """Return vectors of unit length that say what images look like, from grid features.

        float16 [N, C] for [N, L, C]: the mean over the grid. The closer to 1 the scalar product of
        two, the more alike are the images.
        """
        pooled = features.float().mean(1)  # [N, C]
        return torch.nn.functional.normalize(pooled, dim=1).half().cpu().numpy()

    @torch.inference_mode()
    def search(self, features: Tensor) -> list[Caption]:
        """Return a caption for each image, given grid features [N, L, C]."""
        return list(self.captions(self.find_hypotheses(features)))

    @torch.inference_mode()
    def find_hypotheses(self, features: Tensor) -> SearchResult:
        """Return the hypotheses of a beam search, given grid features [N, L, C]."""
        log_presence = self.model.presence(features)
        content = self.rules.content
        bias = self.model.logit_bias(log_presence, content, self.options)
        predictor = WordPredictor(self.model.decoder, features, bias)
        found = beam_search(predictor, len(features), self.options, self.device, self.rules)
        return SearchResult(Hypotheses(*(part.cpu() for part in found)), log_presence.cpu())

    def signals(self, found: SearchResult) -> Floats:
        """Return the signals from which confidence is computed: float64 [N, len(SIGNALS)]."""
        weights = -self.model.presence.log_prior * self.rules.content
        return compute_signals(*found, weights.cpu())

    def captions(self, found: SearchResult) -> Iterator[Caption]:
        """Yield a caption for each image of a search."""
        confidence = None
        if self.calibration:
            confidence = self.calibration.confidence(self.signals(found)).tolist()
        tokens, token_log_probs, log_probs, scores = (part.tolist() for part in found.hypotheses)
        for n in range(len(tokens)):
            length = tokens[n][0].index(EOS) + 1
            texts: dict[str, Alternative] = {}  # hypotheses may differ in "a" and "an" only
            for ids, log_prob, score in zip(tokens[n], log_probs[n], scores[n], strict=True):
                text = sentence(self.vocabulary.decode(ids))
                if score > NEG_INF:
                    texts.setdefault(text, Alternative(text, log_prob))
            yield Caption(
                text=next(iter(texts)),
                confidence=confidence[n] if confidence else None,
                log_prob=log_probs[n][0],
                token_log_probs=tuple(token_log_probs[n][0][:length]),
                alternatives=tuple(texts.values())[1:],
            )

    def _pixels_or_none(self, image: Picture, on_error: OnError) -> Pixels | None:
        try:
            return self._pixels(image)
        except ImageError:
            if on_error == "raise":
                raise
            return None

    def _pixels(self, image: Picture) -> Pixels:
        """Convert any accepted image to uint8 RGB [image_size, image_size, 3]."""
        if isinstance(image, np.ndarray):
            picture = Image.fromarray(image).convert("RGB")
            return np.asarray(picture.resize((self.image_size, self.image_size)))
        if isinstance(image, Image.Image):
            return square_pixels(image, self.image_size)
        if isinstance(image, bytes):
            return decode_image(image, self.image_size).pixels
        try:
            return decode_image(Path(image).read_bytes(), self.image_size).pixels
        except OSError as error:
            raise UnreadableImage(f"{image}: {error.strerror}") from error
        except ImageError as error:
            raise type(error)(f"{image}: {error}") from error


def _is_one(images: Picture | Iterable[Picture]) -> TypeGuard[Picture]:
    if isinstance(images, np.ndarray):
        return images.ndim == 3  # [H, W, 3], not a batch of these
    return isinstance(images, str | Path | bytes | Image.Image)
