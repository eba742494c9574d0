"""Which file has a caption of an image with this SHA-256: an index in the scratch of a run.

It has the first 8 bytes of the hashes, and takes 12 bytes a caption. The driver writes it: the
table's hashes as one sorted chunk before the work begins, then a log with those of each part that
is committed, which becomes a chunk when it is long enough. Workers open the chunks as memory maps
and read on in the log, so neither lists a folder, and what is in their memory has a bound.

On a store there is no log: a worker has a copy of the table's chunk, and adds what it commits
itself.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.read import batches_by_file
from captioner.schemas.caption_table import Status

CHUNK = 4_000_000  # hashes sorted in memory at once
GROWTH = 4  # times longer than the next one is each sorted series of the log
HASH_DIGITS, PREFIX_DIGITS = 64, 16  # hexadecimal
_COLUMNS = ("image_sha256", "status", "captioner")
Prefixes = npt.NDArray[np.uint64]


class Sorted(NamedTuple):
    """Hashes in order, each once, with the number of the file that has it."""

    prefixes: Prefixes
    files: npt.NDArray[np.int32]

    def file_of(self, prefix: np.uint64) -> int | None:
        """The number of the file that has a hash; None if none does."""
        place = self.prefixes.searchsorted(prefix)
        if place == len(self.prefixes) or self.prefixes[place] != prefix:
            return None
        return int(self.files[place])


class HashLog:
    """The driver's: tells the workers what the others have committed."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._chunks = _ChunkWriter(run, Path(str(run.known))) if run.storage.appends else None

    def add(self, part: OutPath, hashes: str) -> None:
        """Add the captions of a part, by the first 16 digits of each hash, in a row."""
        if hashes and self._chunks:
            with _log(self._chunks.folder, self._chunks.written).open("a", encoding="utf-8") as log:
                log.write(f"{self._run.out.name_of(part)} {hashes}\n")
            self._chunks.add(part, _from_digits(hashes))


class HashIndex:
    """A worker's view of the index. Only `files_of` is for several threads."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self._known = run, _Known(run)
        self._chunks: list[tuple[Sorted, npt.NDArray[np.str_]]] = []
        self._begin_log()

    def _begin_log(self) -> None:
        self._series: list[Sorted] = []
        self._names: list[str] = []
        self._position = 0

    def look(self) -> None:
        """Take in what has been committed since the last look.

        What cannot be read is left for the next look: to know less costs time only.
        """
        with suppress(OSError, ValueError):
            known = self._known.folder()
            while _file(known, len(self._chunks), "prefixes").exists():
                self._chunks.append(_read_chunk(known, len(self._chunks)))
                self._begin_log()
            with _log(known, len(self._chunks)).open("rb") as log:
                log.seek(self._position)
                lines = log.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._position += len(whole)
            pairs = [line.rsplit(" ", 1) for line in whole.decode().splitlines()]
            self._add([name for name, _ in pairs], [_from_digits(text) for _, text in pairs])

    def add(self, part: OutPath, hashes: str) -> None:
        """Add a part of this worker's own, which the driver may not have logged yet."""
        if hashes:
            self._add([self._run.out.name_of(part)], [_from_digits(hashes)])

    def files_of(self, sha256: str) -> Iterator[OutPath]:
        """Files that may have a caption of that hash."""
        prefix = np.uint64(first_bytes(sha256))
        for chunk, names in self._chunks:
            if (number := chunk.file_of(prefix)) is not None:
                yield self._run.out.root / str(names[number])
        for series in self._series:
            if (number := series.file_of(prefix)) is not None:
                yield self._run.out.root / self._names[number]

    def _add(self, names: Sequence[str], prefixes: Sequence[Prefixes]) -> None:
        new = _sorted(np.concatenate([*prefixes, _NONE]), _numbers(prefixes, len(self._names)))
        self._names += names
        while self._series and len(self._series[-1].prefixes) <= GROWTH * len(new.prefixes):
            last = self._series.pop()
            both = np.concatenate([last.prefixes, new.prefixes])
            new = _sorted(both, np.concatenate([last.files, new.files]))
        if len(new.prefixes):
            self._series.append(new)


class _Known:
    """The folder of the index for a worker: a copy, fetched once, if the run's is on a store."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def folder(self) -> Path:
        """OSError if it cannot be fetched."""
        known, storage = self._run.known, self._run.storage
        if storage.appends:
            return Path(str(known))
        if self._copy is None:
            copy = tempfile.TemporaryDirectory(prefix="captioner-")
            for file in storage.files(known, "*.npy"):
                storage.get(file, Path(copy.name, file.name))
            self._copy = copy
        return Path(self._copy.name)


def index_table(run: RunFolder, captioner: str, folder: Path) -> None:
    """Index the captions that the table has of this captioner.

    The index is made in `folder`, which is the scratch of the run unless that is on a store; then
    workers get a copy. UsageError for a file that is none of a table's.
    """
    known = folder / run.known.name
    known.mkdir(exist_ok=True)
    chunks = _ChunkWriter(run, known)
    paths = run.out.table_files()
    for path, batches in zip(paths, batches_by_file(paths, _COLUMNS), strict=True):
        for batch in batches:
            if len(hashes := batch.column(0).filter(_is_known(batch, captioner))):
                chunks.add(path, first_bytes_of(hashes))
    chunks.write()
    if chunks.written > 1:
        _merge(known, chunks.written)
    for file in known.iterdir():
        run.storage.put(file, run.known / file.name)


def first_bytes(sha256: str) -> int:
    """The first 8 bytes of a hash as a number."""
    return int(sha256[:PREFIX_DIGITS], 16)


def first_bytes_of(hashes: pa.Array) -> Prefixes:
    """The same of strings of 64 digits, without nulls."""
    _, offsets, data = hashes.cast(pa.string()).buffers()
    start = np.frombuffer(offsets, np.int32)[hashes.offset]
    text = np.frombuffer(data, np.uint8, len(hashes) * HASH_DIGITS, start)
    digits = text.reshape(-1, HASH_DIGITS)[:, :PREFIX_DIGITS]
    halves = (digits & 15) + 9 * (digits >> 6)  # "0" is 0x30, "a" is 0x61
    return (halves[:, ::2] << 4 | halves[:, 1::2]).view(">u8").ravel().astype(np.uint64)


class _ChunkWriter:
    """Writes chunks of the index, after those that are there."""

    def __init__(self, run: RunFolder, folder: Path) -> None:
        self._run, self.folder = run, folder
        self.written = len(list(folder.glob("*.prefixes.npy")))
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []
        self._prefixes: list[Prefixes] = []
        self._rows = 0

    def add(self, path: OutPath, prefixes: Prefixes) -> None:
        self._names.append(self._run.out.name_of(path))
        self._prefixes.append(prefixes)
        self._rows += len(prefixes)
        if self._rows >= CHUNK:
            self.write()

    def write(self) -> None:
        """Write what has been added, if anything has. The prefixes appear last, and whole."""
        if not self._rows:
            return
        chunk = _sorted(np.concatenate(self._prefixes), _numbers(self._prefixes))
        path = _file(self.folder, self.written, "prefixes")
        unfinished = path.with_name("unfinished.npy")
        np.save(_file(self.folder, self.written, "names"), np.array(self._names))
        np.save(_file(self.folder, self.written, "files"), chunk.files)
        np.save(unfinished, chunk.prefixes)
        unfinished.rename(path)
        self.written += 1
        self._begin()


def _merge(known: Path, count: int) -> None:
    """Make one of all chunks, range by range of hashes, each about as long as a chunk."""
    chunks, names = zip(*(_read_chunk(known, number) for number in range(count)), strict=True)
    firsts = np.cumsum([0, *map(len, names)], dtype=np.int32)
    edges = np.array([2**64 * number // count for number in range(1, count)], np.uint64)
    cuts = [[0, *chunk.prefixes.searchsorted(edges), len(chunk.prefixes)] for chunk in chunks]
    total = sum(len(chunk.prefixes) for chunk in chunks)
    np.save(_file(known, count, "names"), np.concatenate(names))
    with (
        _new_array(_file(known, count, "prefixes"), np.uint64, total) as prefixes,
        _new_array(_file(known, count, "files"), np.int32, total) as files,
    ):
        for number in range(count):
            parts = [slice(cut[number], cut[number + 1]) for cut in cuts]
            pairs = list(zip(chunks, parts, firsts[:-1], strict=True))
            values = np.concatenate([chunk.prefixes[part] for chunk, part, _ in pairs])
            numbers = np.concatenate([chunk.files[part] + first for chunk, part, first in pairs])
            order = np.argsort(values)
            prefixes.write(values[order].data)
            files.write(numbers[order].data)
    for what in ("prefixes", "files", "names"):
        for number in range(count):
            _file(known, number, what).unlink()
        _file(known, count, what).rename(_file(known, 0, what))


@contextmanager
def _new_array(path: Path, kind: type[np.generic], length: int) -> Iterator[BinaryIO]:
    """An .npy file of that length whose values are to be written."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        yield file


def _is_known(batch: pa.RecordBatch, captioner: str) -> pa.Array:
    hashes, status, by = batch.columns
    whole = pc.equal(pc.binary_length(hashes), HASH_DIGITS)
    ok = pc.equal(status.cast(pa.string()), Status.OK)
    return pc.and_(pc.and_(whole, ok), pc.equal(by, captioner))


def _sorted(prefixes: Prefixes, files: npt.NDArray[np.int32]) -> Sorted:
    order = np.argsort(prefixes)
    prefixes = prefixes[order]
    is_first = np.ones(len(prefixes), bool)
    is_first[1:] = prefixes[1:] != prefixes[:-1]
    return Sorted(prefixes[is_first], files[order[is_first]])


def _numbers(groups: Sequence[Prefixes], first: int = 0) -> npt.NDArray[np.int32]:
    """The number of its group for each member of the groups."""
    numbers = np.arange(first, first + len(groups), dtype=np.int32)
    return np.repeat(numbers, [len(group) for group in groups])


def _from_digits(digits: str) -> Prefixes:
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _file(known: Path, chunk: int, what: str) -> Path:
    return known / f"{chunk:06d}.{what}.npy"


def _log(known: Path, chunk: int) -> Path:
    """The log of what is to become that chunk."""
    return known / f"{chunk:06d}.log"


def _read_chunk(known: Path, chunk: int) -> tuple[Sorted, npt.NDArray[np.str_]]:
    parts = (_file(known, chunk, what) for what in ("prefixes", "files", "names"))
    prefixes, files, names = (np.asarray(np.load(path, mmap_mode="r")) for path in parts)
    return Sorted(prefixes, files), names


_NONE: Prefixes = np.empty(0, np.uint64)
