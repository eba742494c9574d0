"""HfCaptioner: an image-to-text model of Hugging Face transformers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from captioner.caption import Alternative, Caption
from captioner.captioner import Answer, Captioner, Measure
from captioner.device import choose_device, is_out_of_memory
from captioner.errors import CaptionerError, UnreadableImage
from captioner.hf.files import (
    find_model,
    first_line,
    hf_identity,
    hf_prompt,
    hf_settings,
    max_new_tokens,
)
from captioner.hf.model import FAULTS, HfModel, load_model
from captioner.house_rules import HouseRules
from captioner.identity import computing, identity
from captioner.image import DecodedImage, decode_fitted
from captioner.options import CaptionerOptions
from captioner.precision import precision_of

BATCH_SIZES = {"cpu": 8, "cuda": 16}
ENOUGH = 10  # answers without a word: a model that has said nothing by then will say nothing
MAX_SIDE = 1024  # of images for models that would take any size: a caption needs no more

_PLAIN = Image.new("RGB", (64, 48), "gray")  # a picture that any model can take


class HfCaptioner(Captioner):
    """A model of transformers, ready on a device."""

    def __init__(self, directory: Path, options: CaptionerOptions) -> None:
        device = choose_device(options.device)
        trust, precision = options.trust_remote_code, precision_of(options)
        self.model: HfModel = load_model(directory, device, precision, trust_remote_code=trust)
        self.options = options
        self.prompt = hf_prompt(directory, options)
        self.identity = identity(hf_identity(directory, options), precision)
        self.batch_size = BATCH_SIZES[device.type]
        self.house_rules = HouseRules(options.search.max_characters, options.language)
        self._settings = {**hf_settings(directory, options), **computing(precision)}
        self._side = _side(self.model.image_processor)
        self._at_once = sys.maxsize  # images that fit into the memory together
        self._blank = 0  # answers without a word, of those before the first word
        self._has_spoken = False

    @classmethod
    def open(cls, options: CaptionerOptions) -> "HfCaptioner":
        """Load a model from a directory, or from the cache or hub of Hugging Face.

        Raises CheckpointError if it is missing or damaged or would run code of its own,
        CaptionerError if the device is missing, MissingExtraError without transformers.
        """
        return cls(find_model(options), options)

    @property
    def settings(self) -> dict[str, object]:
        """The prompt, the search, the calibration and more as JSON values."""
        return self._settings

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        """Shrink an image to about twice the size that the model takes; see Captioner.

        The model's own processor resizes it again.
        """
        return decode_fitted(image, self._side, self.limits)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> Sequence[Answer]:
        """Return the captions of prepared images; see Captioner."""
        with measure("generate"):
            pictures = [Image.fromarray(image.pixels) for image in images]
            answers = self._answers(pictures)
            if not any(isinstance(answer, Caption) for answer in answers):
                self._check_works()
        self._check_speaks(answers)
        return answers

    def _answers(self, pictures: Sequence[Image.Image]) -> list[Answer]:
        """Caption a batch or, if that fails, its halves (for want of memory) or its images."""
        size = self._at_once
        if len(pictures) <= size:
            try:
                return self._generated(pictures)
            except (*FAULTS, MemoryError) as error:
                if is_out_of_memory(error):
                    size = self._at_once = _half(pictures, error)
                elif len(pictures) == 1:
                    return [UnreadableImage(f"the model cannot take it: {first_line(error)}")]
                else:
                    size = 1
        # Not in the handler, where the error would keep the tensors of the failed attempt.
        starts = range(0, len(pictures), size)
        return [a for start in starts for a in self._answers(pictures[start : start + size])]

    def _check_works(self) -> None:
        """Raise CaptionerError if the model, and not some image, is at fault."""
        try:
            self._generated([_PLAIN])
        except (*FAULTS, MemoryError) as error:
            raise CaptionerError(f"{self.identity} fails: {first_line(error)}") from error

    def _check_speaks(self, answers: Sequence[Answer]) -> None:
        """Raise CaptionerError if no answer so far has a word."""
        if self._has_spoken:
            return
        texts = [answer.text for answer in answers if isinstance(answer, Caption)]
        self._has_spoken = any(any(map(str.isalpha, text)) for text in texts)
        self._blank += len(texts)
        if not self._has_spoken and self._blank >= ENOUGH:
            raise CaptionerError(
                f"{self.identity} says nothing: its first {self._blank} answers have no word; "
                "try another prompt, or another model"
            )

    def _generated(self, pictures: Sequence[Image.Image]) -> list[Answer]:
        beams, tokens = self.options.search.beam_size, max_new_tokens(self.options)
        found = self.model.generate(pictures, self.prompt, beams, tokens)
        return [_caption(*rows) for rows in zip(*found, strict=True)]


def _caption(texts: Sequence[str], token_log_probs: Sequence[Sequence[float]]) -> Caption:
    """Return the best of several hypotheses as a caption, the others as its alternatives."""
    different: dict[str, Alternative] = {}
    for text, log_probs in zip(texts, token_log_probs, strict=True):
        different.setdefault(text, Alternative(text, sum(log_probs)))
    best, *others = different.values()
    return Caption(
        text=best.text,
        log_prob=best.log_prob,
        token_log_probs=tuple(token_log_probs[0]),
        alternatives=tuple(others),
    )


def _half(pictures: Sequence[Image.Image], error: BaseException) -> int:
    """Return half the number of pictures; raise CaptionerError if there is only one."""
    if len(pictures) == 1:
        raise CaptionerError(
            "there is not enough memory for one image: choose a smaller model or fewer beams, "
            "start fewer workers, or, if it is a GPU's, choose the device cpu"
        ) from error
    return len(pictures) // 2


def _side(image_processor: Any) -> int:
    """Return the longest side of prepared images, by the `size` that a processor resizes to."""
    size = getattr(image_processor, "size", None)
    if isinstance(size, int):
        size = {"shortest_edge": size}
    sides = [value for value in dict(size or {}).values() if isinstance(value, int)]
    return min(2 * max(sides, default=MAX_SIDE), MAX_SIDE)
