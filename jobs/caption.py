"""caption_images: captions without a table."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from captioner.jobs.execution.run_state import load_captioner
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.uris import image_uri, is_local, local_path
from captioner.schemas.caption_table import CaptionRow
from captioner.schemas.image_record import ImageRecord, records_of
from captioner.search_options import SearchOptions

BATCH_SIZE = 32
MAX_BYTES = 256 * 1024 * 1024


def caption_images(
    images: Iterable[str], checkpoint: str, device: str, search: SearchOptions
) -> Iterator[CaptionRow]:
    """Yield a row for each image: a path, a URL, or each image below a directory, in order.

    A row whose status is not ok says why the image has no caption. Raise CaptionerError if the
    captioner cannot be loaded, UsageError for a directory without images.
    """
    settings = WorkerSettings(checkpoint, device, search, BATCH_SIZE, MAX_BYTES)
    partitions = PartitionCaptioner(load_captioner(settings), settings, run_id="")
    records = (record for image in images for record in _records(image))
    while batch := list(islice(records, BATCH_SIZE)):
        rows, _ = partitions.caption(batch, StageTimes())
        yield from rows


def _records(image: str) -> Iterator[ImageRecord]:
    if is_local(image) and Path(local_path(image)).is_dir():
        for batch in open_source(image).batches:
            yield from records_of(pa.Table.from_batches([batch]))
    else:
        yield ImageRecord(image_uri(image), None)
