"""The images of a partition -> rows: load them in threads, caption them in batches."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from captioner.image import DecodedImage
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.pipeline.image_loader import FindCaption, ImageLoader, LoadedImage, failure
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.look_ahead import map_ahead
from captioner.jobs.table.embeddings import Vectors
from captioner.jobs.table.threshold import needs_review
from captioner.schemas.caption_table import Alternative, CaptionRow, Status, file_metadata
from captioner.schemas.image_record import ImageRecord

if TYPE_CHECKING:
    from captioner.captioner import Caption, Captioner

MIN_READERS = 4  # threads that fetch and decode
BATCHES_AHEAD = 2  # decoded and waiting, at most


@dataclass(frozen=True)
class PartitionCaptioner:
    """The captioner at work on the partitions of one run.

    After each batch it calls `report` with the number of images done so far in the partition.
    """

    captioner: "Captioner"
    settings: WorkerSettings
    run_id: str
    find_caption: FindCaption = lambda sha256: None
    report: Callable[[int], None] = lambda done: None

    def caption(
        self, records: Sequence[ImageRecord], times: StageTimes
    ) -> tuple[list[CaptionRow], dict[str, Vectors | None]]:
        """Return a row for each record, in order, and the embeddings of the images that are new.

        These are those that the network captioned, by hash; None unless the job wants embeddings.
        """
        now = datetime.now(UTC)
        images, new = self._captioned(records, times)
        by_content = {image.sha256: image.values for image in images if image.values}
        rows = (self._row(each, each.values or by_content[each.sha256], now) for each in images)
        return list(rows), new

    def crashed_rows(self, records: Sequence[ImageRecord], reason: str) -> list[CaptionRow]:
        """Return rows for images that must not be opened again, with `reason` as their error."""
        values, now = failure(Status.CRASHED, reason), datetime.now(UTC)
        return [self._row(LoadedImage(record), values, now) for record in records]

    def file_metadata(self) -> dict[bytes, bytes]:
        """Return the metadata of a file with these rows."""
        threshold = self.settings.threshold
        captioners = {self.captioner.identity: self.captioner.settings}
        return file_metadata(captioners, asdict(threshold) if threshold else None)

    def _captioned(
        self, records: Sequence[ImageRecord], times: StageTimes
    ) -> tuple[list[LoadedImage], dict[str, Vectors | None]]:
        """Return the images, with values unless they are copies, and the embeddings of new ones."""
        size, images, new = (
            self.settings.batch_size,
            list[LoadedImage](),
            dict[str, Vectors | None](),
        )
        with (
            ImageReader(records, self.settings.max_bytes) as reader,
            ThreadPoolExecutor(reader_count()) as pool,
        ):
            pixels = self.captioner.image_size
            loader = ImageLoader(records, reader, pixels, self.find_caption, times)
            loading = map_ahead(pool, loader.load, range(len(records)), BATCHES_AHEAD * size)
            for batch in _batches((future.result() for future in loading), size):
                images += self._caption_batch(batch, times, new)
                self.report(len(images))
        return images, new

    def _caption_batch(
        self, batch: Sequence[LoadedImage], times: StageTimes, new: dict[str, Vectors | None]
    ) -> Iterator[LoadedImage]:
        """Yield the images of a batch, with captions for pixels; add embeddings to `new`."""
        captions: Iterator[Caption] = iter(())
        hashes = [image.sha256 or "" for image in batch if image.decoded]
        if pixels := [image.decoded.pixels for image in batch if image.decoded]:
            with times.measure("encode"):
                features = self.captioner.encode(np.stack(pixels))
                wanted = self.settings.embeddings
                vectors = self.captioner.embed(features) if wanted else [None] * len(hashes)
            new.update(zip(hashes, vectors, strict=True))
            with times.measure("search"):
                captions = iter(self.captioner.search(features))
        for image in batch:
            if image.decoded:
                values = _caption_values(image.decoded, next(captions))
                yield replace(image, decoded=None, values=values)
            else:
                yield image

    def _row(self, image: LoadedImage, values: Mapping[str, Any], now: datetime) -> CaptionRow:
        return CaptionRow(
            image_uri=image.record.uri,
            image_version=image.record.version or (image.sha256 and f"sha256-{image.sha256}"),
            image_sha256=image.sha256,
            captioner=self.captioner.identity,
            run_id=self.run_id,
            annotated_at=now,
            needs_review=needs_review(values.get("confidence"), self.settings.threshold),
            **values,
        )


def reader_count() -> int:
    """Return how many threads fetch and decode: one for each core, as the cluster counts them."""
    return max(MIN_READERS, int(os.environ.get("OMP_NUM_THREADS", "0")))


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


def _caption_values(image: DecodedImage, caption: "Caption") -> dict[str, Any]:
    """Return the values of a caption; the confidence is rounded to float32, as in the table."""
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
