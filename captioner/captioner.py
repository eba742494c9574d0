"""Captioner: photographs -> captions. What every captioner has in common."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

import captioner
from captioner.answers import AnswerStore, NoAnswers
from captioner.budget import Budget
from captioner.calibration import Calibration
from captioner.caption import Caption
from captioner.confidence import confidence_beside, confidence_of, own_signals
from captioner.errors import CaptionerError, ImageError, RejectedCaption, UnreadableImage
from captioner.house_rules import HouseRules
from captioner.image import DecodedImage, ImageLimits

Picture: TypeAlias = str | Path | bytes | npt.NDArray[np.uint8] | Image.Image
OnError: TypeAlias = Literal["raise", "skip"]
Answer: TypeAlias = Caption | CaptionerError
Measure: TypeAlias = Callable[[str], AbstractContextManager[object]]  # times a stage, by its name

A = TypeVar("A")
R = TypeVar("R")


def not_measured(stage: str) -> AbstractContextManager[object]:
    """Time nothing."""
    return nullcontext()


class Captioner(ABC):
    """A captioner of images; `load` makes one.

    `identity` names it with all that changes its captions. It likes `batch_size` images at once,
    and more than `max_batch_size` only keep memory.
    Its captions have a confidence if there is a `calibration`, which `load` finds.
    Images beyond its `limits` are refused.
    One that asks a server keeps to its `budget`, and asks nothing whose answer it has in `answers`,
    nor anything else once it `is_abandoned`: nobody waits for its answers any more.

    >>> captioner = Captioner.load("flickr8k")
    >>> captioner.caption("dog.jpg").text
    """

    identity: str
    batch_size: int
    max_batch_size: int = sys.maxsize
    house_rules: HouseRules
    calibration: Calibration | None = None
    limits = ImageLimits()
    budget = Budget()
    answers: AnswerStore = NoAnswers()
    is_abandoned: Callable[[], bool] = staticmethod(lambda: False)

    @staticmethod
    def load(name_or_directory: str | Path = "flickr8k", **options: Any) -> "Captioner":
        """Load a bundled model or a model directory, `hf:NAME_OR_DIRECTORY` or `openai:MODEL`.

        `options` are the other fields of CaptionerOptions, such as device and search. Raises
        CheckpointError if the model is missing or damaged, CaptionerError if the device is
        missing, MissingExtraError if a package is.
        """
        # By the front door, which is opened when it is needed: the kinds of captioners import this.
        return captioner.load_captioner(name_or_directory, **options)

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """What the captioner does and how it is calibrated, as JSON values."""

    @abstractmethod
    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        """Decode an image, or the bytes of its file, to the pixels that this captioner takes.

        Thread-safe. Raises ImageError.
        """

    @abstractmethod
    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Answer]:
        """Return a caption, or the error that prevented it, for each prepared image of a batch.

        CaptionerUnavailable as an error means that another time might do better; other errors
        concern the image itself. Raises CaptionerError if no image can be captioned. `measure`
        times the stages.
        """

    def caption_batch(
        self, images: Sequence[DecodedImage], measure: Measure = not_measured
    ) -> list[Answer]:
        """Return what `answer` does, with captions that keep the house rules and have a confidence.

        A caption that cannot be made to keep them is a RejectedCaption.
        """
        return [self._tidied(answer) for answer in self.answer(images, measure)]

    def _tidied(self, answer: Answer) -> Answer:
        if not isinstance(answer, Caption):
            return answer
        try:
            caption = self.house_rules.applied(answer)
        except RejectedCaption as error:
            return error
        if caption.token_log_probs is not answer.token_log_probs:  # its signals are those of both
            spoken = replace(caption, token_log_probs=answer.token_log_probs)
            caption = replace(caption, signals=own_signals(spoken))
        if caption.confidence is not None:
            return caption
        return replace(caption, confidence=confidence_of(self.calibration, caption))

    def confidence_beside(
        self, caption: Caption, other: str, confidence: float | None
    ) -> float | None:
        """Return the confidence of a caption in the light of another captioner's caption.

        Two captioners that say the same are rarely both wrong.
        """
        return confidence_beside(self.calibration, caption, other, confidence)

    # A str is an iterable of str, too.
    @overload
    def caption(self, images: Picture, batch_size: int | None = ...) -> Caption: ...  # type: ignore[overload-overlap]

    @overload
    def caption(self, images: Iterable[Picture], batch_size: int | None = ...) -> list[Caption]: ...

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, batch_size: int | None = ..., *, on_error: OnError
    ) -> Caption | None: ...

    @overload
    def caption(
        self, images: Iterable[Picture], batch_size: int | None = ..., *, on_error: OnError
    ) -> list[Caption | None]: ...

    def caption(
        self,
        images: Picture | Iterable[Picture],
        batch_size: int | None = None,
        *,
        on_error: OnError = "raise",
    ) -> Caption | Sequence[Caption | None] | None:
        """Return the caption of an image, or a list with those of several, in their order.

        An image is a path, the bytes of an image file, a picture of PIL or uint8 RGB [H, W, 3].
        Raises the error of the first image that has no caption: ImageError if it cannot be read,
        RejectedCaption; with `on_error="skip"`, None is in its place.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error must be "raise" or "skip", not {on_error!r}')
        if _is_one(images):
            return self._captions([images], on_error)[0]
        captions: list[Caption | None] = []
        waiting = iter(cast(Iterable[Picture], images))
        while batch := list(islice(waiting, batch_size or self.batch_size)):
            captions += self._captions(batch, on_error)
        return captions

    def _captions(self, images: Sequence[Picture], on_error: OnError) -> list[Caption | None]:
        """Return the captions of a batch."""
        prepared = [_or_none(self._prepared, image, on_error) for image in images]
        readable = [image for image in prepared if image is not None]
        answers = iter(self.caption_batch(readable) if readable else ())
        return [
            None if image is None else _or_none(_caption_of, next(answers), on_error)
            for image in prepared
        ]

    def _prepared(self, image: Picture) -> DecodedImage:
        """Prepare an image of any kind."""
        if isinstance(image, np.ndarray):
            return self.prepare(Image.fromarray(image))
        if isinstance(image, bytes | Image.Image):
            return self.prepare(image)
        try:
            return self.prepare(Path(image).read_bytes())
        except OSError as error:
            raise UnreadableImage(f"{image}: {error.strerror}") from error
        except ImageError as error:
            raise type(error)(f"{image}: {error}") from error


def _caption_of(answer: Answer) -> Caption:
    if isinstance(answer, Caption):
        return answer
    raise answer


def _or_none(call: Callable[[A], R], value: A, on_error: OnError) -> R | None:
    try:
        return call(value)
    except ImageError:
        if on_error == "raise":
            raise
        return None


def _is_one(images: Picture | Iterable[Picture]) -> TypeGuard[Picture]:
    if isinstance(images, np.ndarray):
        return images.ndim == 3  # [H, W, 3], not a batch of these
    return isinstance(images, str | Path | bytes | Image.Image)
