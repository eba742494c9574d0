"""caption_images: captions without a table."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from captioner.jobs.execution.worker.run_state import load_captioner
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import image_uri, is_local, local_path, without_user
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import CaptionRow
from captioner.schemas.image_record import Access, ImageRecord, records_of


def caption_images(images: Iterable[str], options: CaptionerOptions) -> Iterator[CaptionRow]:
    """Yield a row for each image: a path, a URL, or each image below a directory, in order.

    A row whose status is not ok says why the image has no caption. Raise CaptionerError if the
    captioner cannot be loaded, UsageError for a directory without images.
    """
    captioner = load_captioner(options)
    partitions = PartitionCaptioner(captioner, WorkerSettings(options, MAX_BYTES), run_id="")
    records = (record for image in images for record in _records(image))
    while batch := list(islice(records, captioner.batch_size)):
        captioned = partitions.caption(batch, StageTimes())
        rows = {row.image_uri: row for row in captioned.rows}
        for record, down in captioned.down:
            rows[record.uri] = partitions.failed_row(record, down.status, str(down))
        yield from (rows[record.uri] for record in batch if record.uri in rows)
        if captioned.unavailable:
            raise captioned.unavailable


def _records(image: str) -> Iterator[ImageRecord]:
    if is_local(image) and Path(local_path(image)).is_dir():
        for batch in open_source(image).batches:
            yield from records_of(pa.Table.from_batches([batch]))
    else:
        uri = image_uri(image)
        key = without_user(without_signature(uri))
        yield ImageRecord(key, None, access=Access(url=uri) if key != uri else None)
