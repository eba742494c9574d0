"""An index for one run: from an image's SHA-256 to a file of the table that has its caption.

It holds the first 8 bytes of each hash, the prefix, and takes 12 bytes per caption. The driver
writes it to the scratch folder of the run: first the table's hashes as sorted blocks, then a log of
the hashes of each committed part, which becomes a block once it is long enough. Workers map the
blocks into memory and follow the log, so they list no folder and their memory is bounded.

On a store there is no log: a worker copies the table's blocks and adds what it commits itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.jobs.table.embeddings import EmbeddedHashes
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.read import column_batches, opened_files
from captioner.schemas.caption_table import Status

BLOCK = 4_000_000  # hashes, sorted in memory at once; each block adds 2 us to a search
RECENT = 100_000  # hashes in a worker's dictionary, which takes about 10 MB
HASH_DIGITS, PREFIX_DIGITS = 64, 16  # hexadecimal
_COLUMNS = ("image_sha256", "status", "captioner")
Prefixes = npt.NDArray[np.uint64]


class SortedHashes(NamedTuple):
    """Prefixes in order, each with the number of a file that has it."""

    prefixes: Prefixes
    files: npt.NDArray[np.int32]

    def file_of(self, prefix: np.uint64) -> int | None:
        """Return the number of a file that has a prefix; None if no file has."""
        place = self.prefixes.searchsorted(prefix)
        if place == len(self.prefixes) or self.prefixes[place] != prefix:
            return None
        return int(self.files[place])


class HashLog:
    """The driver's log, from which workers learn what the others have committed."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        folder = run.storage.local_path(run.known)
        self._blocks = _BlockWriter(run, folder) if folder else None

    def add(self, part: OutPath, digits: str) -> None:
        """Add the captions of a part, by their `first_digits`."""
        if digits and self._blocks:
            with _log(self._blocks.folder, self._blocks.written).open("a", encoding="utf-8") as log:
                log.write(f"{self._run.out.name_of(part)} {digits}\n")
            self._blocks.add(part, prefixes_of(digits))


class HashIndex:
    """A worker's view of the index. Only `files_of` is thread-safe."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self._folder = run, _IndexFolder(run)
        self._blocks: list[tuple[SortedHashes, npt.NDArray[np.str_]]] = []
        self._begin_log()

    def _begin_log(self) -> None:
        self._position = 0
        self._names: list[str] = []  # of the files in the log
        self._recent: dict[int, int] = {}  # from a prefix to the number of a name
        self._logged = SortedHashes(np.empty(0, np.uint64), np.empty(0, np.int32))

    def refresh(self) -> None:
        """Read what was committed since the last call, and leave what fails to the next one."""
        with suppress(OSError, ValueError):
            folder = self._folder.path()
            while _file(folder, len(self._blocks), "prefixes").exists():
                self._blocks.append(_read_block(folder, len(self._blocks)))
                self._begin_log()
            with _log(folder, len(self._blocks)).open("rb") as log:
                log.seek(self._position)
                lines = log.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._position += len(whole)
            for line in whole.decode().splitlines():
                self._add(*line.rsplit(" ", 1))

    def add(self, part: OutPath, digits: str) -> None:
        """Add a part of this worker, which the driver may not have logged yet."""
        if digits:
            self._add(self._run.out.name_of(part), digits)

    def files_of(self, sha256: str) -> Iterator[OutPath]:
        """Yield the files that may have a caption of an image with this hash."""
        prefix = prefix_of(sha256)
        for block, names in self._blocks:
            if (number := block.file_of(prefix)) is not None:
                yield self._run.out.root / str(names[number])
        for number in (self._recent.get(int(prefix)), self._logged.file_of(prefix)):
            if number is not None:
                yield self._run.out.root / self._names[number]

    def _add(self, name: str, digits: str) -> None:
        self._recent.update(dict.fromkeys(prefixes_of(digits).tolist(), len(self._names)))
        self._names.append(name)
        if len(self._recent) > RECENT:
            self._sort_recent()

    def _sort_recent(self) -> None:
        """Move the hashes in the dictionary to the sorted array, which is smaller."""
        prefixes = np.fromiter(self._recent, np.uint64, len(self._recent))
        numbers = np.fromiter(self._recent.values(), np.int32, len(self._recent))
        self._logged = _sorted(
            np.concatenate([self._logged.prefixes, prefixes]),
            np.concatenate([self._logged.files, numbers]),
        )
        self._recent = {}


class _IndexFolder:
    """The folder of the index as a worker reads it: a copy, fetched once, if it is on a store."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._copy: TemporaryFolder | None = None

    def path(self) -> Path:
        """Return the local folder; OSError if it cannot be fetched."""
        known, storage = self._run.known, self._run.storage
        if local := storage.local_path(known):
            return local
        if self._copy is None:
            copy = TemporaryFolder()
            for file in storage.files(known, "*.npy"):
                storage.get(file, Path(copy.name, file.name))
            self._copy = copy
        return Path(self._copy.name)


def index_table(
    run: RunFolder, captioner: str, folder: Path, embedded: EmbeddedHashes | None = None
) -> None:
    """Index the captions of the table that are by this captioner; UsageError for a foreign file.

    With `embedded`, leave out images without an embedding, for which a caption alone will not do.
    The index is made in `folder`: the scratch folder of the run or, if that is on a store, a local
    one of which workers get a copy.
    """
    known = folder / run.known.name
    known.mkdir(exist_ok=True)
    blocks = _BlockWriter(run, known)
    for path, file in opened_files(run.out.table_files()):
        for batch in column_batches(path, file, _COLUMNS):
            hashes = batch.column(0).filter(_is_known(batch, captioner))
            if embedded:
                hashes = hashes.filter(embedded.contain(hashes))
            if len(hashes):
                blocks.add(path, prefixes_of(joined_digits(hashes)))
    blocks.write()
    for file in known.iterdir():
        run.storage.put(file, run.known / file.name)


def first_digits(hashes: Sequence[str]) -> str:
    """Join the first 16 digits of each hash, as results and the log carry them."""
    return "".join(sha256[:PREFIX_DIGITS] for sha256 in hashes)


def joined_digits(hashes: pa.Array) -> str:
    """Return `first_digits` of an array of strings, faster."""
    digits = pc.utf8_slice_codeunits(hashes.cast(pa.string()), 0, PREFIX_DIGITS)
    together = pa.ListArray.from_arrays([0, len(digits)], digits)
    return str(pc.binary_join(together, "")[0])


def prefix_of(sha256: str) -> np.uint64:
    """Return the first 8 bytes of a hash as a number."""
    return np.uint64(int(sha256[:PREFIX_DIGITS], 16))


def prefixes_of(digits: str) -> Prefixes:
    """Return the prefixes of the hashes whose `first_digits` these are."""
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


class _BlockWriter:
    """A writer of blocks of the index, after those that are in the folder."""

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
        if self._rows >= BLOCK:
            self.write()

    def write(self) -> None:
        """Write what has been added, if anything has. The prefixes appear last, and whole."""
        if not self._rows:
            return
        counts = [len(prefixes) for prefixes in self._prefixes]
        numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        block = _sorted(np.concatenate(self._prefixes), numbers)
        path = _file(self.folder, self.written, "prefixes")
        unfinished = path.with_name("unfinished.npy")
        np.save(_file(self.folder, self.written, "names"), np.array(self._names))
        np.save(_file(self.folder, self.written, "files"), block.files)
        np.save(unfinished, block.prefixes)
        unfinished.rename(path)
        self.written += 1
        self._begin()


def _is_known(batch: pa.RecordBatch, captioner: str) -> pa.Array:
    hashes, status, by = batch.columns
    whole = pc.equal(pc.binary_length(hashes), HASH_DIGITS)
    ok = pc.equal(status.cast(pa.string()), Status.OK)
    return pc.and_(pc.and_(whole, ok), pc.equal(by, captioner))


def _sorted(prefixes: Prefixes, files: npt.NDArray[np.int32]) -> SortedHashes:
    order = np.argsort(prefixes, kind="stable")  # fast where the first ones are in order already
    return SortedHashes(prefixes[order], files[order])


def _file(known: Path, block: int, what: str) -> Path:
    return known / f"{block:06d}.{what}.npy"


def _log(known: Path, block: int) -> Path:
    """Return the log that will become that block."""
    return known / f"{block:06d}.log"


def _read_block(known: Path, block: int) -> tuple[SortedHashes, npt.NDArray[np.str_]]:
    parts = (_file(known, block, what) for what in ("prefixes", "files", "names"))
    prefixes, files, names = (np.asarray(np.load(path, mmap_mode="r")) for path in parts)
    return SortedHashes(prefixes, files), names
