"""Images of a partition -> rows: fetch, hash and decode in threads, caption by batches."""

import functools
import hashlib
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from captioner.errors import ImageError, ImageTooLarge
from captioner.image import DecodedImage, decode_image
from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.container_reader import Read, image_reads
from captioner.jobs.pipeline.known_captions import KnownCaptions, Values, known_captions
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.review import Threshold, needs_review
from captioner.schemas.caption_table import Alternative, CaptionRow, Status
from captioner.schemas.image_record import ImageRecord, records_of

if TYPE_CHECKING:
    from captioner.captioner import Caption, Captioner

READERS = 4  # threads that fetch and decode, at least
BATCHES_AHEAD = 2  # decoded and waiting, at most
_COUNTING = threading.Lock()
Seconds = defaultdict[str, float]  # by stage
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ReadImage:
    """An image fetched and decoded, or the `values` that its row has in place of a new caption.

    Those are a failure, or the caption of identical bytes. With neither, an image of the same
    partition is identical, and both have the same values.
    """

    record: ImageRecord
    sha256: str | None = None
    decoded: DecodedImage | None = None
    values: Values | None = None


def caption_rows(
    plan: pa.Table,
    run: RunFolder,
    settings: WorkerSettings,
    captioner: "Captioner",
    seconds: Seconds,
    verdict: str | None = None,
) -> tuple[list[CaptionRow], list[str]]:
    """A row for each record, in order, and the hashes of the images that the network saw."""
    records = records_of(plan)
    origin = functools.partial(
        CaptionRow,
        captioner=captioner.identity,
        run_id=run.run_id,
        annotated_at=datetime.now(UTC),
    )
    row = functools.partial(_row, origin, settings.threshold)
    if verdict is not None:
        crashed = _failure(Status.CRASHED, verdict)
        return [row(ReadImage(record), crashed) for record in records], []
    images, new = _caption(records, run, settings, captioner, seconds)
    by_content = {image.sha256: image.values for image in images if image.values}
    return [row(image, image.values or by_content[image.sha256]) for image in images], new


def _caption(
    records: list[ImageRecord],
    run: RunFolder,
    settings: WorkerSettings,
    captioner: "Captioner",
    seconds: Seconds,
) -> tuple[list[ReadImage], list[str]]:
    """The images with their values, but for copies of others; the hashes that are new."""
    known = known_captions(run, captioner.identity)
    known.look()
    read = functools.partial(read_image, captioner.image_size, seconds, known, {})
    size = settings.batch_size
    images: list[ReadImage] = []
    new: list[str] = []
    with (
        image_reads(records, settings.max_bytes) as reads,
        ThreadPoolExecutor(reader_count()) as readers,
    ):
        sources = zip(records, reads, strict=True)
        ready = _in_order(readers, read, sources, ahead=BATCHES_AHEAD * size)
        for batch in _batches(ready, size):
            new += [image.sha256 for image in batch if image.decoded and image.sha256]
            images += _caption_batch(batch, captioner, seconds)
    return images, new


def _batches(images: Iterable[ReadImage], size: int) -> Iterator[list[ReadImage]]:
    """The same images; `size` of each batch are to be captioned, of the last one fewer."""
    batch: list[ReadImage] = []
    decoded = 0
    for image in images:
        batch.append(image)
        decoded += image.decoded is not None
        if decoded == size:
            yield batch
            batch, decoded = [], 0
    yield batch


def reader_count() -> int:
    """Threads that fetch and decode: one a core of this process (told in torch's own variable)."""
    return max(READERS, int(os.environ.get("OMP_NUM_THREADS", "0")))


def _caption_batch(
    batch: list[ReadImage], captioner: "Captioner", seconds: Seconds
) -> Iterator[ReadImage]:
    """The same images, those that were decoded with the values of their captions instead."""
    pixels = [image.decoded.pixels for image in batch if image.decoded]
    captions: Iterator[Caption] = iter(())
    if pixels:
        features = timed(seconds, "encode", lambda: captioner.encode(np.stack(pixels)))
        captions = iter(timed(seconds, "search", lambda: captioner.search(features)))
    for image in batch:
        if image.decoded:
            values = _captioned(image.decoded, next(captions))
            yield replace(image, decoded=None, values=values)
        else:
            yield image


def read_image(
    size: int,
    seconds: Seconds,
    known: KnownCaptions,
    firsts: dict[str, ImageRecord],
    source: tuple[ImageRecord, Read],
) -> ReadImage:
    """Fetch one image and, if its bytes are new, decode it to `size` x `size` pixels.

    What is wrong with it is a status. `firsts` has, by hash, the images of the partition whose
    bytes no other had before. Adds the seconds of fetching, and those of the processor for
    decoding, which waits for cores.
    """
    record, read = source
    sha256 = None
    try:
        data = timed(seconds, "fetch", read)
        sha256 = hashlib.sha256(data).hexdigest()
        if firsts.setdefault(sha256, record) is not record:
            return ReadImage(record, sha256)
        if values := known.find(sha256):
            return ReadImage(record, sha256, values=values)
        decoded = timed(seconds, "decode", lambda: decode_image(data, size), time.thread_time)
    except FetchError as error:
        return ReadImage(record, values=_failure(error.status, str(error)))
    except ImageError as error:
        too_large = isinstance(error, ImageTooLarge)
        status = Status.TOO_LARGE if too_large else Status.UNREADABLE
        return ReadImage(record, sha256, values=_failure(status, str(error)))
    return ReadImage(record, sha256, decoded)


def _failure(status: Status, error: str) -> Values:
    return {"status": status, "error": error.encode(errors="backslashreplace").decode()}


def _captioned(image: DecodedImage, caption: "Caption") -> Values:
    """As they are in the table, whose confidence is a float32."""
    confidence = caption.confidence
    others = caption.alternatives
    return {
        "status": Status.OK,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "caption": caption.text or None,
        "confidence": None if confidence is None else float(np.float32(confidence)),
        "log_prob": caption.log_prob,
        "token_log_probs": caption.token_log_probs,
        "alternatives": [Alternative(caption=a.text, log_prob=a.log_prob) for a in others],
    }


def _row(
    origin: Callable[..., CaptionRow],
    threshold: Threshold | None,
    image: ReadImage,
    values: Values,
) -> CaptionRow:
    return origin(
        image_uri=image.record.uri,
        image_version=image.record.version or (image.sha256 and f"sha256-{image.sha256}"),
        image_sha256=image.sha256,
        needs_review=needs_review(values.get("confidence"), threshold),
        **values,
    )


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """The function of each item, in order, computed at most `ahead` items in advance."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def timed(
    seconds: Seconds,
    stage: str,
    action: Callable[[], R],
    clock: Callable[[], float] = time.perf_counter,
) -> R:
    """Add what an action takes to its stage."""
    start = clock()
    try:
        return action()
    finally:
        with _COUNTING:
            seconds[stage] += clock() - start
