"""The images of a partition -> rows: load them in threads, caption them in batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from captioner.errors import CaptionerUnavailable
from captioner.image import DecodedImage
from captioner.jobs.errors import Abandoned, HostDown
from captioner.jobs.fetching.container_reader import ImageReader, Watch, unwatched
from captioner.jobs.pipeline.former import second_opinion
from captioner.jobs.pipeline.image_loader import (
    FindCaption,
    ImageLoader,
    LoadedImage,
    failure,
    image_failure,
)
from captioner.jobs.pipeline.loading import load_ahead
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.table.embeddings import Vectors
from captioner.jobs.table.threshold import needs_review
from captioner.schemas.caption_table import (
    Alternative,
    CaptionRow,
    Status,
    WordConfidence,
    file_metadata,
)
from captioner.schemas.image_record import ImageRecord

if TYPE_CHECKING:
    from captioner.caption import Caption, Word
    from captioner.captioner import Answer, Captioner

BATCHES_AHEAD = 2  # decoded and waiting, at most
ENOUGH_AHEAD = 512  # images; of larger batches, there is one


@dataclass
class CaptionedImages:
    """The rows of a partition's images, in order, and the embeddings of those that are new.

    New images are those that the captioner saw; `new` has their hashes, with None unless the job
    wants embeddings. If the captioner became `unavailable`, the images from then on have no row;
    nor have those that are `down`, because their host does not answer, or refuses requests.
    """

    rows: list[CaptionRow] = field(default_factory=list)
    new: dict[str, Vectors | None] = field(default_factory=dict)
    unavailable: CaptionerUnavailable | None = None
    down: list[tuple[ImageRecord, HostDown]] = field(default_factory=list)


@dataclass(frozen=True)
class PartitionCaptioner:
    """The captioner at work on the partitions of one run.

    `former_rows` has, by URI, the rows about which this captioner gives a second opinion. After
    each batch it calls `report` with the number of images done so far in the partition. It opens
    each image within `watch`, which gets the image's position in the partition. While it `waits`
    for an image of another host, it says for which one.
    """

    captioner: "Captioner"
    settings: WorkerSettings
    run_id: str
    find_caption: FindCaption = lambda sha256: None
    report: Callable[[int], None] = lambda done: None
    former_rows: Mapping[str, CaptionRow] = field(default_factory=dict)
    watch: Watch = unwatched
    waits: Callable[[str], None] = lambda uri: None

    def caption(self, records: Sequence[ImageRecord], times: StageTimes) -> CaptionedImages:
        """Return the rows of the images in records; raise Abandoned if nobody waits for them."""
        now = datetime.now(UTC)
        result = CaptionedImages()
        images = self._captioned(records, times, result)
        for place, image in enumerate(images):
            if image.values and image.values["status"] == Status.OUT_OF_MEMORY:
                number = records.index(image.record)
                images[place] = self._alone(number, image.record, times, result)
        result.down = [(image.record, image.down) for image in images if image.down]
        by_content = {image.sha256: image.values for image in images if image.values}
        for image in images:
            copied = by_content.get(image.sha256) if image.sha256 else None
            if values := image.values or copied:
                result.rows.append(self._row(image, values, now))
        return result

    def _alone(
        self, number: int, record: ImageRecord, times: StageTimes, result: CaptionedImages
    ) -> LoadedImage:
        """Caption an image again while no other is open: together they took too much memory."""
        alone = replace(self, report=lambda done: None, watch=lambda _: self.watch(number))
        (image,) = alone._captioned([record], times, result)
        return image

    def crashed_rows(
        self, records: Sequence[ImageRecord], reason: str, status: Status = Status.CRASHED
    ) -> list[CaptionRow]:
        """Return rows for images that must not be opened again, with `reason` as their error."""
        return [self.failed_row(record, status, reason) for record in records]

    def failed_row(self, record: ImageRecord, status: Status, reason: str) -> CaptionRow:
        """Return the row of an image that was not opened."""
        return self._row(LoadedImage(record), failure(status, reason), datetime.now(UTC))

    def file_metadata(self) -> dict[bytes, bytes]:
        """Return the metadata of a file with these rows."""
        threshold = self.settings.threshold
        captioners = {self.captioner.identity: self.captioner.settings}
        return file_metadata(captioners, asdict(threshold) if threshold else None)

    def _captioned(
        self, records: Sequence[ImageRecord], times: StageTimes, result: CaptionedImages
    ) -> list[LoadedImage]:
        """Return the images in order, with values unless they are copies, or were left."""
        size = self.settings.batch_size or self.captioner.batch_size
        size = min(size, self.captioner.max_batch_size)
        images: list[LoadedImage] = []
        with ImageReader(records, self.settings.max_bytes, self.watch) as reader:
            prepare = self.captioner.prepare
            loader = ImageLoader(records, reader, prepare, self.find_caption, times, self.watch)
            ahead = min(BATCHES_AHEAD * size, max(ENOUGH_AHEAD, size))
            with closing(load_ahead(loader, ahead, self._wait)) as loading:
                for batch in _batches(loading, size):
                    images += self._caption_batch(batch, times, result)
                    self._check()
                    self.report(len(images))
                    if result.unavailable:
                        break
        places = {record.uri: place for place, record in enumerate(records)}
        return sorted(images, key=lambda image: places[image.record.uri])

    def _wait(self, uri: str) -> None:
        self._check()
        self.waits(uri)

    def _check(self) -> None:
        if self.captioner.is_abandoned():
            raise Abandoned

    def _caption_batch(
        self, batch: Sequence[LoadedImage], times: StageTimes, result: CaptionedImages
    ) -> Iterator[LoadedImage]:
        """Yield the images of a batch, with values for pixels unless they were left."""
        prepared = [image.decoded for image in batch if image.decoded]
        answers = iter(self.captioner.caption_batch(prepared, times.measure) if prepared else ())
        for image in batch:
            if not image.decoded:
                yield image
                continue
            answer = next(answers)
            if isinstance(answer, CaptionerUnavailable):
                result.unavailable = answer
                yield replace(image, decoded=None)
                continue
            if not isinstance(answer, Exception):
                result.new[image.sha256 or ""] = answer.embedding
            yield replace(image, decoded=None, values=_values(image.decoded, answer))

    def _row(self, image: LoadedImage, values: Mapping[str, Any], now: datetime) -> CaptionRow:
        row = CaptionRow(
            image_uri=image.record.uri,
            image_version=image.record.version or (image.sha256 and f"sha256-{image.sha256}"),
            image_sha256=image.sha256,
            captioner=self.captioner.identity,
            run_id=self.run_id,
            annotated_at=now,
            **values,
        )
        former = self.former_rows.get(row.image_uri)
        row = second_opinion(row, former, self.captioner) if former else replace(row, former=None)
        return replace(row, needs_review=needs_review(row, self.settings.threshold))


def _batches(images: Iterable[LoadedImage], size: int) -> Iterator[list[LoadedImage]]:
    """Yield the images in lists with `size` decoded ones each; the last one may have fewer."""
    batch: list[LoadedImage] = []
    decoded = 0
    for image in images:
        batch.append(image)
        decoded += image.decoded is not None
        if decoded == size:
            yield batch
            batch, decoded = [], 0
    yield batch


def _values(image: DecodedImage, answer: "Answer") -> Mapping[str, Any]:
    """Return the values of an image by what the captioner answered."""
    found = {"width": image.width, "height": image.height, "format": image.format}
    if isinstance(answer, Exception):
        return {**image_failure(answer), **found}
    return {**found, **_caption_values(answer)}


def _caption_values(caption: "Caption") -> dict[str, Any]:
    """Return the values of a caption; the confidence is rounded to float32, as in the table."""
    confidence = caption.confidence
    others = caption.alternatives
    return {
        "status": Status.OK,
        "caption": caption.text or None,
        "confidence": None if confidence is None else float(np.float32(confidence)),
        "word_confidence": _word_confidence(caption.words),
        "log_prob": caption.log_prob,
        "token_log_probs": caption.token_log_probs,
        "alternatives": [Alternative(caption=a.text, log_prob=a.log_prob) for a in others],
    }


def _word_confidence(words: "Sequence[Word]") -> list[WordConfidence] | None:
    return [
        WordConfidence(word=word.text, confidence=word.confidence)
        for word in words
        if word.confidence is not None
    ] or None
