"""Captioned photographs for training and evaluation: image stores, and splits of a data set."""

import math
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from captioner.errors import DatasetError, ImageError
from captioner.image import decode_image
from captioner.training.data.caption_files import CaptionedImage, read_captions
from captioner.training.progress import bar, say


class ImageStore:
    """The image files of a directory or of an uncompressed tar, by name.

    A name is a path inside the store; if that path does not exist, the last part of the name is
    used. Each read opens the file itself, so a store can be shared by threads and pickled.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, indexing a tar; raises DatasetError if it is neither directory nor tar."""
        self.path = path
        self._members = None if path.is_dir() else _index_tar(path)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """Return the bytes of an image file; raises DatasetError if it does not exist."""
        path, offset, size = self._place(name)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def version(self, name: str) -> tuple[str, int, int]:
        """Return an image's file and offset, and the file's modification time in nanoseconds."""
        path, offset, _ = self._place(name)
        return str(path), offset, path.stat().st_mtime_ns

    def names(self) -> list[str]:
        """Return the names of all files."""
        if self._members is not None:
            places = {place: name for name, place in self._members.items()}  # one name of each
            return sorted(places.values())
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.path)) for path in files)

    def _place(self, name: str) -> tuple[Path, int, int]:
        place = self._find(name)
        if place is None:
            raise DatasetError(f"{self.path}: no image {name}")
        return place

    def _find(self, name: str) -> tuple[Path, int, int] | None:
        """Return an image's file, and its offset and size in bytes (-1: to the end of the file)."""
        for candidate in (str(PurePosixPath(name)), PurePosixPath(name).name):
            if self._members is not None and candidate in self._members:
                return self.path, *self._members[candidate]
            if self._members is None and (self.path / candidate).is_file():
                return self.path / candidate, 0, -1
        return None


def _index_tar(path: Path) -> dict[str, tuple[int, int]]:
    """Return the offset and size of each regular file by its name, and by the last part of it."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = [member for member in tar if member.isreg()]
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(
            f"{path}: neither a directory nor an uncompressed tar ({error})"
        ) from error
    places = {str(PurePosixPath(file.name)): (file.offset_data, file.size) for file in files}
    # A last part shared by several files is ambiguous: leave it out.
    shared = Counter(PurePosixPath(name).name for name in places)
    last_parts = {
        PurePosixPath(name).name: place
        for name, place in places.items()
        if shared[PurePosixPath(name).name] == 1
    }
    return last_parts | places


@dataclass(frozen=True)
class Split:
    """The captioned images of one split, each with the index of the store that holds it."""

    stores: tuple[ImageStore, ...]
    items: tuple[tuple[int, CaptionedImage], ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def captions(self) -> list[tuple[str, ...]]:
        """The captions of each image, in the order of `items`."""
        return [image.captions for _, image in self.items]

    def some(self, count: int | None) -> "Split":
        """Return a split with `count` of the images, evenly spaced; all if there are no more."""
        if count is None or count >= len(self):
            return self
        return replace(self, items=tuple(self.items[n * len(self) // count] for n in range(count)))

    def read(self, index: int) -> bytes:
        """Return the bytes of the image file of `items[index]`."""
        store, image = self.items[index]
        return self.stores[store].read(image.name)


def load_split(images: Sequence[Path], captions: Sequence[Path], split: str | None) -> Split:
    """Pair image stores (directories or tars) one to one with caption files, and check them.

    Raises DatasetError if a captioned image is missing from its store, or a file is malformed.
    """
    if len(images) != len(captions) or not images:
        raise DatasetError(
            f"{len(images)} image stores and {len(captions)} caption files: "
            "give one caption file for each directory or tar of images"
        )
    stores = tuple(ImageStore(path) for path in images)
    items: list[tuple[int, CaptionedImage]] = []
    for index, (store, path) in enumerate(zip(stores, captions, strict=True)):
        captioned = read_captions(path, split)
        _require_images(store, captioned, path)
        items.extend((index, image) for image in captioned)
    return Split(stores, tuple(items))


def _require_images(store: ImageStore, captioned: Iterable[CaptionedImage], path: Path) -> None:
    missing = [image.name for image in captioned if image.name not in store]
    if missing:
        raise DatasetError(
            f"{store.path}: {len(missing)} images captioned in {path} are missing "
            f"(such as {', '.join(missing[:3])}); add the files or remove their captions"
        )


def decode_split(split: Split, pixels: npt.NDArray[np.uint8], threads: int) -> None:
    """Decode the images of a split, in the order of `items`, into RGB `pixels` [N, S, S, 3].

    Raises DatasetError, naming the image, if one cannot be decoded.
    """
    size = pixels.shape[1]

    def decode(index: int) -> None:
        try:
            pixels[index] = decode_image(split.read(index), size).pixels
        except ImageError as error:
            name = split.items[index][1].name
            raise DatasetError(
                f"{name}: {error}; replace the file or remove its captions"
            ) from error

    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(decode, range(len(split)))
        for _ in bar(done, "decode", " images", len(split)):
            pass


def decode_some(
    images: Sequence[Path], size: int, most: int, threads: int
) -> npt.NDArray[np.uint8]:
    """Decode images of directories and tars, whatever they show: uint8 RGB [N, size, size, 3].

    There are about `most` at most, evenly spaced. Files that cannot be read as images are left out;
    raises DatasetError if no others are there.
    """
    files = [(store, name) for store in map(ImageStore, images) for name in store.names()]
    some = files[:: math.ceil(len(files) / most) or 1]

    def decode(file: tuple[ImageStore, str]) -> npt.NDArray[np.uint8] | None:
        store, name = file
        try:
            return decode_image(store.read(name), size).pixels
        except (ImageError, OSError):
            return None

    with ThreadPoolExecutor(threads) as pool:
        decoded = bar(pool.map(decode, some), "decode", " images", len(some))
        pixels = [each for each in decoded if each is not None]
    if not pixels:
        raise DatasetError(f"{', '.join(map(str, images))}: no images")
    if len(pixels) < len(some):
        say(f"{len(some) - len(pixels):,} files are no images that can be read")
    return np.stack(pixels)
