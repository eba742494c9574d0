"""SOURCE -> image records, as a stream: a directory, a glob, one image, or a manifest."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa

from jobs.errors import UsageError
from jobs.inventory import find_inventory, inventory_records
from jobs.manifest import manifest_records
from jobs.manifest_kinds import MANIFEST_SUFFIXES, TEXT, manifest_kind
from jobs.uris import file_version, image_uri, image_version, is_local, local_path
from schemas.image_record import plan_schema

# What Pillow reads, and HEIC, so that iPhone photographs are reported rather than passed over.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
BATCH_ROWS = 10_000
UNREADABLE_FOLDERS = "unreadable folders"  # a reason for skipping

Records = Iterator[tuple[str, str | None]]  # uri and version
IsImage = Callable[[str], bool]  # by the name of a file
Identity = tuple[int, int]  # of a folder: device and inode
EVERYTHING = re.compile("")


@dataclass(frozen=True)
class Source:
    """A listing: batches of `schema` (a plan's), to be read once.

    `skipped` counts, by reason, what was found and is no image; it grows while the batches are
    read. `scope` matches the beginning of every URI that it could ever list.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    skipped: Counter[str] = field(default_factory=Counter)
    scope: re.Pattern[str] = EVERYTHING


def open_source(source: str | Path, any_extension: bool = False) -> Source:
    """The images that SOURCE names. UsageError if there is nothing that could be read.

    The order depends on the names alone. Of a directory, hidden files and folders and, unless
    `any_extension`, files without an image's extension are skipped; symbolic links are followed,
    loops end.

    A directory without any image is a manifest if it has manifests, of one kind, in itself or in
    `key=value` folders; those in other folders are skipped. The first image found settles that
    it is a directory of images, whose manifests are skipped.
    """
    if manifest := find_inventory(str(source)):
        return Source(*inventory_records(manifest, None if any_extension else IMAGE_SUFFIXES))
    if not is_local(str(source)):
        raise UsageError(
            f"cannot list {source}: SOURCE must be a local directory, glob or manifest"
        )
    path = Path(local_path(str(source)))
    is_image = _is_any_name if any_extension else is_image_name
    if path.is_dir():
        return _directory(path, is_image)
    if path.is_file():
        return _file(path, is_image)
    if glob.has_magic(str(path)):
        return _glob(str(path), is_image)
    raise UsageError(f"{source} does not exist; SOURCE is a directory, a glob or a manifest")


def _file(path: Path, is_image: IsImage) -> Source:
    if manifest_kind(path.name):
        return Source(*manifest_records([path], path.parent))
    if is_image(path.name):
        return _found(str(path), iter([_record(str(path))]), Counter())
    known = ", ".join(MANIFEST_SUFFIXES)
    raise UsageError(f"{path} is neither an image nor a manifest ({known})")


@dataclass
class _PassedOver:
    """What a walk through the folder `root` passes over: all that `is_image` does not take.

    `skipped` counts it by reason. `manifests` are those that are the source should the walk find
    no image; None from the first image on.
    """

    root: str
    is_image: IsImage
    skipped: Counter[str] = field(default_factory=Counter)
    manifests: list[Path] | None = field(default_factory=list)

    def add(self, path: str) -> None:
        if self.manifests is not None and manifest_kind(path) and self._is_on_top(path):
            self.manifests.append(Path(path))
        else:
            self.skipped[_why_no_image(path)] += 1

    def _is_on_top(self, path: str) -> bool:
        """Whether a file is in the root, or in `key=value` folders."""
        return all(name.find("=") > 0 for name in Path(path).relative_to(self.root).parts[:-1])

    def listing(self) -> list[Path]:
        """The manifests that are the source; text beside others is taken for notes."""
        found = self.manifests or []
        return [path for path in found if manifest_kind(path.name) is not TEXT] or found

    def skip_manifests(self) -> None:
        self.skipped.update(_why_no_image(path.name) for path in self.manifests or ())
        self.manifests = None


def _directory(path: Path, is_image: IsImage) -> Source:
    passed = _PassedOver(os.path.abspath(path), is_image)  # noqa: PTH100
    try:
        status = path.stat()
        next(path.iterdir(), None)
    except OSError as error:
        raise UsageError(f"cannot list {path}: {error.strerror}") from error
    images = _walk(passed.root, (_identity(status),), passed)
    first = next(images, None)
    if first is None and (files := passed.listing()):
        return Source(*manifest_records(files, Path(passed.root)), passed.skipped)
    passed.skip_manifests()
    found = chain(() if first is None else (first,), images)
    scope = re.compile(re.escape(os.path.join(passed.root, "")))  # noqa: PTH118
    return _found(str(path), found, passed.skipped, scope)


def _glob(pattern: str, is_image: IsImage) -> Source:
    skipped: Counter[str] = Counter()
    return _found(pattern, _matches(pattern, is_image, skipped), skipped)


def _found(
    source: str, records: Records, skipped: Counter[str], scope: re.Pattern[str] = EVERYTHING
) -> Source:
    """A source of records without columns of their own; UsageError if there are none."""
    batches = _batches(records)
    first = next(batches, None)
    if first is None:
        others = ", ".join(f"{n} {reason}" for reason, n in skipped.items())
        raise UsageError(f"no images in {source}" + (f" (skipped: {others})" if others else ""))

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from batches

    return Source(plan_schema(), all_batches(), skipped, scope)


def _batches(records: Records) -> Iterator[pa.RecordBatch]:
    while rows := list(islice(records, BATCH_ROWS)):
        uris, versions = zip(*rows, strict=True)
        yield pa.record_batch([uris, versions], schema=plan_schema())


def _record(path: str) -> tuple[str, str | None]:
    uri = image_uri(path)
    return uri, image_version(uri)


def _matches(pattern: str, is_image: IsImage, skipped: Counter[str]) -> Records:
    for path in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
        if Path(path).is_dir():
            continue
        if is_image(path):
            yield _record(path)
        else:
            skipped[_why_no_image(path)] += 1


def _walk(folder: str, ancestors: tuple[Identity, ...], passed: _PassedOver) -> Records:
    """The images below a folder; `ancestors` are itself and the folders above."""
    try:
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        passed.skipped[UNREADABLE_FOLDERS] += 1
        return
    for entry in children:
        if entry.name.startswith("."):
            passed.skipped["hidden"] += 1
        elif folder_identity := _folder_identity(entry):
            if folder_identity in ancestors:
                passed.skipped["links to a folder above"] += 1
            else:
                yield from _walk(entry.path, (*ancestors, folder_identity), passed)
        elif not passed.is_image(entry.name):
            passed.add(entry.path)
        else:
            yield image_uri(entry.path), _entry_version(entry)


def _folder_identity(entry: os.DirEntry[str]) -> Identity | None:
    """Of a folder or a link to one; None for what is neither."""
    try:
        return _identity(entry.stat()) if entry.is_dir() else None
    except OSError:  # a link to itself, or a folder that has just gone
        return None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _entry_version(entry: os.DirEntry[str]) -> str | None:
    try:
        return file_version(entry.stat())
    except OSError:  # a broken link; the row will say not_found
        return None


def _why_no_image(name: str) -> str:
    """Why a file is skipped. Text beside images is notes or captions more often than a manifest."""
    kind = manifest_kind(name)
    return "manifests" if kind and kind is not TEXT else "no image's extension"


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _is_any_name(_: str) -> bool:
    return True
