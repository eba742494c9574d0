"""One image of a partition -> pixels, or the reason why the network need not see it."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captioner.errors import (
    CaptionerError,
    ImageError,
    ImageTooLarge,
    OutOfMemory,
    RejectedCaption,
    UnsupportedImage,
)
from captioner.image import DecodedImage
from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching.container_reader import ImageReader, Watch, unwatched
from captioner.jobs.fetching.whole import why_not_whole
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.signatures import without_signatures
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import ImageRecord

Values = Mapping[str, Any]  # of some columns of a row
FindCaption = Callable[[str], Values | None]  # by SHA-256: CONTENT_COLUMNS of an identical image


@dataclass(frozen=True)
class LoadedImage:
    """An image with its `decoded` pixels, with the `values` of its row, or with neither.

    The values are those of a failure, or of a caption of identical bytes. An image with neither
    takes the values of an identical image in the same partition, unless its host is `down`: then it
    gets no row.
    """

    record: ImageRecord
    sha256: str | None = None
    decoded: DecodedImage | None = None
    values: Values | None = None
    down: HostDown | None = None


@dataclass
class ImageLoader:
    """A loader of the images of one partition; `load` is thread-safe."""

    records: Sequence[ImageRecord]
    reader: ImageReader
    prepare: Callable[[bytes], DecodedImage]
    find_caption: FindCaption
    times: StageTimes
    watch: Watch = unwatched
    _first_with: dict[str, int] = field(default_factory=dict)  # the first image, by SHA-256

    def load(self, number: int) -> LoadedImage:
        """Fetch an image and, unless its bytes are known, `prepare` it.

        An error becomes the values of a failure. Decoding counts CPU time: the threads wait for
        cores.
        """
        record = self.records[number]
        sha256 = None
        try:
            with self.times.measure("fetch"):
                data = self.reader.read(number)
            sha256 = hashlib.sha256(data).hexdigest()
            if self._first_with.setdefault(sha256, number) != number:
                return LoadedImage(record, sha256)
            if values := self.find_caption(sha256):
                return LoadedImage(record, sha256, values=values)
            with self.watch(number), self.times.measure("decode", time.thread_time):
                return LoadedImage(record, sha256, self.prepare(data))
        except HostDown as error:
            return LoadedImage(record, down=error)
        except FetchError as error:
            return LoadedImage(record, values=failure(error.status, str(error)))
        except ImageError as error:
            values = image_failure(error)
            if values["status"] is Status.UNREADABLE and (why := self._why_not_whole(record, data)):
                values = failure(Status.FETCH_FAILED, why)
            return LoadedImage(record, sha256, values=values)

    def _why_not_whole(self, record: ImageRecord, data: bytes) -> str | None:
        return None if record.member else why_not_whole(record.uri, len(data))


def image_failure(error: CaptionerError) -> Values:
    """Return the values of an image that has no caption because of this error."""
    kinds: dict[type[CaptionerError], Status] = {
        ImageTooLarge: Status.TOO_LARGE,
        OutOfMemory: Status.OUT_OF_MEMORY,
        UnsupportedImage: Status.UNSUPPORTED,
        RejectedCaption: Status.REJECTED,
    }
    statuses = (status for kind, status in kinds.items() if isinstance(error, kind))
    return failure(next(statuses, Status.UNREADABLE), str(error))


def failure(status: Status, error: str) -> Values:
    """Return the values of an image without a caption, with an error that UTF-8 can encode."""
    text = without_signatures(error).encode(errors="backslashreplace").decode()
    return {"status": status, "error": text}
