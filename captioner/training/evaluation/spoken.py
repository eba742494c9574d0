"""What a captioner says about the images of a split, and another one before it."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from captioner.caption import Caption
from captioner.captioner import Captioner
from captioner.errors import CaptionerError, DatasetError, ImageError
from captioner.image import DecodedImage
from captioner.training.data.dataset import Split
from captioner.training.evaluation.acceptability import is_acceptable
from captioner.training.evaluation.reliability import Booleans
from captioner.training.progress import bar, say


@dataclass(frozen=True)
class Spoken:
    """The captions [N] of images, whether their `references` accept them, and the first captions.

    `rejected` more images got no caption. `images_per_second` is the speed of the captioner.
    """

    captioner: str
    captions: Sequence[Caption]
    references: Sequence[Sequence[str]]
    acceptable: Booleans
    rejected: int
    images_per_second: float
    first: Sequence[Caption] | None = None


def listen(
    captioner: Captioner,
    split: Split,
    batch_size: int | None = None,
    first: Captioner | None = None,
) -> Spoken:
    """Caption the images of a split; with a `first` captioner, those that it could caption.

    Raises DatasetError, naming the image, if one cannot be decoded, CaptionerUnavailable if the
    captioner does not answer, CaptionerError if it has no caption at all.
    """
    before = caption_split(first, split) if first else [None] * len(split)
    if first:
        items = [item for item, caption in zip(split.items, before, strict=True) if caption]
        split = replace(split, items=tuple(items))
    start = time.perf_counter()
    captions = caption_split(captioner, split, batch_size)
    seconds = time.perf_counter() - start
    spoken = [number for number, caption in enumerate(captions) if caption]
    if not spoken:
        raise CaptionerError(f"{captioner.identity} wrote no caption for any of the images")
    texts = [caption.text if caption else "" for caption in captions]
    heard = [caption for caption in before if caption]
    return Spoken(
        captioner=captioner.identity,
        captions=[caption for caption in captions if caption],
        references=[split.captions[number] for number in spoken],
        acceptable=is_acceptable(texts, split.captions)[spoken],
        rejected=len(captions) - len(spoken),
        images_per_second=len(captions) / seconds,
        first=[heard[number] for number in spoken] if first else None,
    )


def caption_split(
    captioner: Captioner, split: Split, batch_size: int | None = None
) -> list[Caption | None]:
    """Return a caption for each image of a split; None where the answer was rejected.

    Raises the errors of `listen`.
    """
    captions: list[Caption | None] = []
    size = batch_size or captioner.batch_size
    say(f"captioning {len(split):,} images with {captioner.identity}")
    batches = _prepared(captioner, split, size)
    for batch in bar(batches, "caption", " batches", math.ceil(len(split) / size)):
        for answer in captioner.caption_batch(batch):
            if not isinstance(answer, Caption | ImageError):
                raise answer
            captions.append(answer if isinstance(answer, Caption) else None)
    return captions


def _prepared(captioner: Captioner, split: Split, size: int) -> Iterator[list[DecodedImage]]:
    """Yield the images in batches; threads prepare the next batch meanwhile."""

    def prepare(number: int) -> DecodedImage:
        try:
            return captioner.prepare(split.read(number))
        except ImageError as error:
            name = split.items[number][1].name
            raise DatasetError(
                f"{name}: {error}; replace the file or remove its captions"
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: list[Future[DecodedImage]] = []
        for start in range(0, len(split), size):
            numbers = range(start, min(start + size, len(split)))
            preparing = [pool.submit(prepare, number) for number in numbers]
            if waiting:
                yield [future.result() for future in waiting]
            waiting = preparing
        if waiting:
            yield [future.result() for future in waiting]
