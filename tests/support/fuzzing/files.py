"""Files as SOURCE: rows whose images can be fetched or not, or a UsageError.

The first byte of an input says what kind of file the others are. So that changes reach what is
inside, some kinds are compressed here; others are compressed already.
"""

import gzip
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.attempts.hosts import host_name
from captioner.jobs.storage.filesystems import configure
from captioner.schemas.image_record import ImageRecord, records_of
from tests.support.hostile_inputs import HOSTILE

LARGEST = 50_000  # bytes of an input to begin with
LARGE = ("bomb", "long", "many", "wide")  # in the names of files that are larger
BATCHES = 20  # of a source that are read
IMAGES = 20  # of a batch that are fetched
MAX_BYTES = 1_000_000  # of an image


@dataclass(frozen=True)
class Kind:
    """Files with a suffix, how SOURCE names them, and what packs an input.

    `inner` ends the names of the files that inputs are like.
    """

    suffix: str
    inner: str
    source: str = "{}"
    packed: Callable[[bytes], bytes] = bytes


def in_zip(name: str, data: bytes) -> bytes:
    """Return a zip with a member; it is dated, so that the same data gives the same zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def seeds_of(kinds: Sequence[Kind]) -> Iterator[bytes]:
    """Yield the hostile files that are small, as each kind that they might be."""
    for name, data in _small_files():
        for number, kind in enumerate(kinds):
            if name.endswith(kind.inner):
                yield bytes([number]) + data


def _small_files() -> Iterator[tuple[str, bytes]]:
    with TemporaryDirectory() as folder:
        for name, write in HOSTILE.items():
            path = Path(folder, name)
            if not any(word in name for word in LARGE):
                write(path)
                if path.stat().st_size <= LARGEST:
                    yield name, path.read_bytes()


@contextmanager
def target_of(kinds: Sequence[Kind], folder: Path) -> Iterator[Callable[[bytes], None]]:
    """Give what reads an input as a file of the kind that its first byte names."""
    place = folder / "files"

    def read(data: bytes) -> None:
        kind = kinds[data[0] % len(kinds)] if data else kinds[0]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / f"x{kind.suffix}"
        path.write_bytes(kind.packed(data[1:]))
        configure({})  # forgets an archive of the same name
        try:
            _read(kind.source.format(path), str(place))
        except UsageError as error:
            assert str(error) and "Traceback" not in str(error)

    yield read


def _read(source: str, folder: str) -> None:
    for batch in islice(open_source(source).batches, BATCHES):
        records = records_of(pa.Table.from_batches([batch.slice(0, IMAGES)]))
        _fetch([record for record in records if _is_here(record, folder)])


def _is_here(record: ImageRecord, folder: str) -> bool:
    """Return whether an image is in the folder: a changed name may be any file, or on any host."""
    return record.member is not None or (folder in record.uri and host_name(record.uri) is None)


def _fetch(records: Sequence[ImageRecord]) -> None:
    with ImageReader(records, MAX_BYTES) as reader:
        for number in range(len(records)):
            try:
                assert len(reader.read(number)) <= MAX_BYTES
            except FetchError as error:
                assert str(error)
