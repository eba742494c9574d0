"""The pipeline of one partition: fetch, hash and decode in threads, caption by batches, commit.

Runs in a worker process, which holds the model. torch is imported with the first partition, so
that the driver, which only names `caption_partition`, does without.
"""

import functools
import hashlib
import json
import os
import threading
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioner.errors import CaptionerError, ImageError, ImageTooLarge
from captioner.image import DecodedImage, decode_image
from jobs.commit import commit, part_bytes
from jobs.errors import ExitCode, FetchError
from jobs.folders import OutFolder
from jobs.members import Read, image_reads
from jobs.plan import read_partition
from jobs.reuse import KnownCaptions, Values, digits, known_captions
from jobs.review import Threshold, needs_review
from jobs.storage import configure, without_secrets
from jobs.store import create, remove, source
from jobs.task import DIED, PartitionResult, SampleTimes, Task, WorkerSettings
from schemas.caption_table import Alternative, CaptionRow, Status, file_metadata, rows_to_table
from schemas.image_record import REPLACES, ImageRecord, passthrough_of, records_of

if TYPE_CHECKING:
    from captioner.captioner import Caption, Captioner

READERS = 4  # threads that fetch and decode, at least
BATCHES_AHEAD = 2  # decoded and waiting, at most

_ONE_AT_A_TIME = threading.Lock()
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


def caption_partition(task: Task) -> PartitionResult:
    """Caption the images of a task and commit their rows; every failure comes back as a result.

    One at a time in a process, with a mark (a file) that is there meanwhile: when the process
    dies, the mark stays behind and says which task it was at.
    """
    with _ONE_AT_A_TIME:
        _configure(task.settings.storage_options, task.run.run_id)
        mark = task.run.mark(task.key)
        try:
            create(mark)
        except FileExistsError:  # the scheduler tries again what a process has died of
            return PartitionResult(task.name, error=DIED, died=True)
        except OSError as error:
            return _cannot_write(task, error)
        try:
            return committed_result(task) or _caption_and_commit(task)
        except Exception:  # noqa: BLE001 (the boundary: no task may break the run)
            return PartitionResult(task.name, error=without_secrets(traceback.format_exc()))
        finally:
            with suppress(OSError):  # its attempt is over, so nobody asks for it
                remove(mark)


def time_sample(settings: WorkerSettings, plan: pa.Table) -> SampleTimes:
    """Caption images without committing them, and say what they took, once the model is warm."""
    size = plan.num_rows
    task = Task(OutFolder(Path()).new_run(), settings, 0, size, 0, size)
    with _ONE_AT_A_TIME:
        _configure(settings.storage_options, task.run.run_id)
        captioner = _load_captioner(settings, task.run.run_id)
        _rows(task, plan.slice(0, 1), captioner, defaultdict(float))
        stages: Seconds = defaultdict(float)
        start = time.perf_counter()
        rows, _ = _rows(task, plan, captioner, stages)
        seconds = time.perf_counter() - start
    table = rows_to_table(rows, _passthrough(task, plan), _metadata(task, captioner))
    row_bytes, file_bytes = part_bytes(table)
    return SampleTimes(size, seconds, dict(stages), _reader_count(), row_bytes, file_bytes)


def committed_result(task: Task) -> PartitionResult | None:
    """The result of a task whose part is in the table already; None if it is not."""
    if not task.part.exists():
        return None
    columns = ["status", "needs_review", "image_sha256"]
    rows = pq.read_table(source(task.part), columns=columns).to_pydict()
    to_review = rows["needs_review"].count(True)
    pairs = zip(rows["status"], rows["image_sha256"], strict=True)
    hashes = digits([sha256 for status, sha256 in pairs if status == Status.OK])
    return PartitionResult(
        task.name, Counter(rows["status"]), needs_review=to_review, hashes=hashes
    )


def _caption_and_commit(task: Task) -> PartitionResult:
    try:
        captioner = _load_captioner(task.settings, task.run.run_id)
    except CaptionerError as error:
        return PartitionResult(task.name, error=str(error), fatal=ExitCode.USAGE)
    seconds: Seconds = defaultdict(float)
    plan = read_partition(task.run.scratch, task.partition).slice(task.start, task.images)
    rows, new = _rows(task, plan, captioner, seconds)
    table = rows_to_table(rows, _passthrough(task, plan), _metadata(task, captioner))
    try:
        _timed(
            seconds, "commit", lambda: commit(table, task.run, task.name, replaces=task.replaces)
        )
    except OSError as error:
        return _cannot_write(task, error)
    statuses = Counter(str(row.status) for row in rows)
    to_review = sum(row.needs_review is True for row in rows)
    reused = statuses[Status.OK] - len(new)
    hashes = digits(new)
    known_captions(task.run, captioner.identity).add(task.part, hashes)
    return PartitionResult(
        task.name, statuses, seconds, captioner.identity, to_review, reused, hashes
    )


def _passthrough(task: Task, plan: pa.Table) -> pa.Table:
    """The columns that go from the plan to the part as they are."""
    return passthrough_of(plan, keep=(REPLACES,) if task.replaces else ())


def _metadata(task: Task, captioner: "Captioner") -> dict[bytes, bytes]:
    """What the file of a part says of its origin."""
    threshold = task.settings.threshold
    return file_metadata(
        {captioner.identity: captioner.settings}, asdict(threshold) if threshold else None
    )


def _cannot_write(task: Task, error: OSError) -> PartitionResult:
    message = f"cannot write to {task.run.out.root}: {without_secrets(str(error))}"
    return PartitionResult(task.name, error=message, fatal=ExitCode.FAULT)


@functools.lru_cache(maxsize=1)
def _configure(storage_options: str, _run_id: str) -> None:
    """Have all that this process opens from here on use a run's storage options."""
    configure(json.loads(storage_options))


@functools.lru_cache(maxsize=1)
def _load_captioner(settings: WorkerSettings, _run_id: str) -> "Captioner":
    """The captioner of a run, once a process; the next run may find other weights there."""
    from captioner.captioner import Captioner
    from captioner.device import keep_freed_memory

    keep_freed_memory()
    return Captioner.load(settings.checkpoint, device=settings.device, search=settings.search)


def _rows(
    task: Task, plan: pa.Table, captioner: "Captioner", seconds: Seconds
) -> tuple[list[CaptionRow], list[str]]:
    """A row for each record, in order, and the hashes of the images that the network saw."""
    records = records_of(plan)
    origin = functools.partial(
        CaptionRow,
        captioner=captioner.identity,
        run_id=task.run.run_id,
        annotated_at=datetime.now(UTC),
    )
    row = functools.partial(_row, origin, task.settings.threshold)
    if task.verdict is not None:
        crashed = _failure(Status.CRASHED, task.verdict)
        return [row(ReadImage(record), crashed) for record in records], []
    images, new = _caption(records, task, captioner, seconds)
    by_content = {image.sha256: image.values for image in images if image.values}
    return [row(image, image.values or by_content[image.sha256]) for image in images], new


def _caption(
    records: list[ImageRecord], task: Task, captioner: "Captioner", seconds: Seconds
) -> tuple[list[ReadImage], list[str]]:
    """The images with their values, but for copies of others; the hashes that are new."""
    known = known_captions(task.run, captioner.identity)
    known.look()
    read = functools.partial(read_image, captioner.image_size, seconds, known, {})
    size = task.settings.batch_size
    images: list[ReadImage] = []
    new: list[str] = []
    with (
        image_reads(records, task.settings.max_bytes) as reads,
        ThreadPoolExecutor(_reader_count()) as readers,
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


def _reader_count() -> int:
    """As many as this process has cores, which cluster.py says in torch's own variable."""
    return max(READERS, int(os.environ.get("OMP_NUM_THREADS", "0")))


def _caption_batch(
    batch: list[ReadImage], captioner: "Captioner", seconds: Seconds
) -> Iterator[ReadImage]:
    """The same images, those that were decoded with the values of their captions instead."""
    pixels = [image.decoded.pixels for image in batch if image.decoded]
    captions: Iterator[Caption] = iter(())
    if pixels:
        features = _timed(seconds, "encode", lambda: captioner.encode(np.stack(pixels)))
        captions = iter(_timed(seconds, "search", lambda: captioner.search(features)))
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
        data = _timed(seconds, "fetch", read)
        sha256 = hashlib.sha256(data).hexdigest()
        if firsts.setdefault(sha256, record) is not record:
            return ReadImage(record, sha256)
        if values := known.find(sha256):
            return ReadImage(record, sha256, values=values)
        decoded = _timed(seconds, "decode", lambda: decode_image(data, size), time.thread_time)
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


def _timed(
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
