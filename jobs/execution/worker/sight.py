"""Images that cannot be found: because they have gone, or because this machine cannot see them."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from captioner.jobs.errors import FetchError
from captioner.jobs.execution.tasks.listed import planned
from captioner.jobs.execution.tasks.task import Task
from captioner.jobs.storage.containers import container_version
from captioner.jobs.storage.uris import is_local, local_path
from captioner.schemas.caption_table import CaptionRow, Status
from captioner.schemas.image_record import ImageRecord, records_of

LOOKS = 16  # at the same time
NOT_SEEN = {Status.NOT_FOUND, Status.DENIED}


def missing_images(records: Sequence[ImageRecord], rows: Iterable[CaptionRow]) -> set[str]:
    """Return the URIs of images that the listing saw, and that this process cannot read."""
    failed = {row.image_uri for row in rows if row.status in NOT_SEEN}
    doubtful = [record for record in records if record.uri in failed and _was_seen(record)]
    with ThreadPoolExecutor(LOOKS) as pool:
        seen = pool.map(sees, doubtful)
        return {record.uri for record, is_there in zip(doubtful, seen, strict=True) if not is_there}


def first_seen(records: Sequence[ImageRecord]) -> str | None:
    """Return the file of the first image that this process can read; None if it can read none."""
    with ThreadPoolExecutor(LOOKS) as pool:
        seen = pool.map(sees, records)
        found = (place(each) for each, is_there in zip(records, seen, strict=True) if is_there)
        return next(found, None)


def first_seen_of(task: Task, rows: Iterable[int]) -> str | None:
    """Return what `first_seen` does for the images in some rows of a task."""
    return first_seen(records_of(planned(replace(task, left=tuple(rows)))))


def sees(record: ImageRecord) -> bool:
    """Return whether this process can read the file of an image."""
    file = place(record)
    try:
        if is_local(file):
            return os.access(local_path(file), os.R_OK)
        container_version(file)
    except (FetchError, ValueError):  # a null byte in the name
        return False
    return True


def place(record: ImageRecord) -> str:
    """Return the file that an image is in."""
    return record.member.container if record.member else record.uri


def _was_seen(record: ImageRecord) -> bool:
    return record.version is not None or record.member is not None or is_local(record.uri)
