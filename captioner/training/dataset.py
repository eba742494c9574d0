"""Captioned photographs for training and evaluation: caption files, image stores, splits."""

import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from captioner.errors import DatasetError, ImageError
from captioner.image import decode_image
from captioner.vocabulary import tokenize


@dataclass(frozen=True)
class CaptionedImage:
    """An image's name in its store, and what people wrote about it: at least one word."""

    name: str
    captions: tuple[str, ...]


def read_captions(path: Path, split: str | None = None) -> list[CaptionedImage]:
    """Read a caption file, in the file's order; its format is found from its content.

    Formats: JSON lines (`{"image": name, "captions": [...]}`), COCO `captions_*.json`, Karpathy
    `dataset_*.json` and Flickr `.token` files. `split` selects the images of one split of a
    Karpathy file ("train" includes "restval"); without it, all are read.

    Raises DatasetError if the file is missing or malformed, or has no such split.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: cannot read the captions ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text; save the captions as UTF-8") from error
    if not text.strip():
        raise DatasetError(f"{path}: the file has no captions")

    document = _first_json_value(text, path) if text.lstrip().startswith("{") else None
    if document is not None and "images" in document and "annotations" not in document:
        return list(_from_karpathy(document, path, split))
    if split is not None:
        raise DatasetError(
            f"{path}: this format has no splits, so {split!r} cannot be selected; "
            "leave the split out and give the file of that split"
        )
    if document is None:
        return list(_from_tokens(text, path))
    if "images" in document:
        return list(_from_coco(document, path))
    return list(_from_json_lines(text, path))


def _first_json_value(text: str, path: Path) -> dict[str, Any]:
    try:
        # The start is stripped because raw_decode, unlike loads, accepts no white space there.
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    assert isinstance(value, dict)  # the text starts with a brace
    return value


def _captioned(name: object, captions: object, where: str) -> CaptionedImage:
    if not isinstance(name, str) or not name:
        raise DatasetError(f"{where}: the image's name is missing or not a string")
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise DatasetError(f"{where}: the captions of {name} are not a list of strings")
    stripped = tuple(one.strip() for one in captions if tokenize(one))
    if not stripped:
        raise DatasetError(f"{where}: {name} has no caption; add one or remove the entry")
    return CaptionedImage(name, stripped)


def _from_json_lines(text: str, path: Path) -> Iterator[CaptionedImage]:
    # Not splitlines: it also breaks at characters that JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{where}: not valid JSON ({error.msg})") from error
        if not isinstance(entry, dict) or not {"image", "captions"} <= entry.keys():
            raise DatasetError(f'{where}: expected {{"image": name, "captions": [...]}}')
        yield _captioned(entry["image"], entry["captions"], where)


def _from_tokens(text: str, path: Path) -> Iterator[CaptionedImage]:
    captions: defaultdict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, hash_sign, _ = key.rpartition("#")
        if not (tab and hash_sign):
            raise DatasetError(
                f"{path}, line {number}: neither JSON nor a line like 'name.jpg#0<TAB>caption'"
            )
        captions[name].append(caption)
    for name, of_image in captions.items():
        yield _captioned(name, of_image, str(path))


def _from_coco(document: dict[str, Any], path: Path) -> Iterator[CaptionedImage]:
    captions: defaultdict[str, list[Any]] = defaultdict(list)
    for annotation in _entries(document, "annotations", {"image_id", "caption"}, path):
        captions[str(annotation["image_id"])].append(annotation["caption"])
    for image in _entries(document, "images", {"id", "file_name"}, path):
        of_image = captions.pop(str(image["id"]), [])
        yield _captioned(image["file_name"], of_image, f"{path}, image {image['id']}")
    if captions:
        raise DatasetError(f"{path}: annotations of image {next(iter(captions))}, not in images")


def _from_karpathy(
    document: dict[str, Any], path: Path, split: str | None
) -> Iterator[CaptionedImage]:
    entries = list(_entries(document, "images", {"filename", "sentences"}, path))
    splits = Counter(str(entry.get("split")) for entry in entries)
    wanted = {"train", "restval"} if split == "train" else {split}
    if split is not None and not wanted & splits.keys():
        raise DatasetError(f"{path}: no split {split!r}; it has {', '.join(sorted(splits))}")
    for position, entry in enumerate(entries):
        if split is not None and str(entry.get("split")) not in wanted:
            continue
        where = f"{path}, images[{position}]"
        try:
            name = str(PurePosixPath(entry.get("filepath", ""), entry["filename"]))
            captions = [sentence["raw"] for sentence in entry["sentences"]]
        except (TypeError, KeyError) as error:
            raise DatasetError(
                f"{where}: expected a filename and sentences with a 'raw' text"
            ) from error
        yield _captioned(name, captions, where)


def _entries(
    document: dict[str, Any], key: str, fields: set[str], path: Path
) -> Iterator[dict[str, Any]]:
    entries = document[key]
    if not isinstance(entries, list):
        raise DatasetError(f"{path}: '{key}' is not a list")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not fields <= entry.keys():
            needed = ", ".join(sorted(fields))
            raise DatasetError(f"{path}, {key}[{position}]: expected an object with {needed}")
        yield entry


class ImageStore:
    """The image files of a directory or of an uncompressed tar, by name.

    A name is a path inside the store; if there is none such, its last part is looked for. Every
    read opens the file anew, so a store can be used in any thread and sent to any process.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` and index the members of a tar; raises DatasetError if it is neither."""
        self.path = path
        self._members = None if path.is_dir() else _index_tar(path)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """Return the bytes of an image file; raises DatasetError if it is not there."""
        path, offset, size = self._place(name)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def written(self, name: str) -> tuple[str, int, int]:
        """File and offset of an image, and when that file was last written, in nanoseconds."""
        path, offset, _ = self._place(name)
        return str(path), offset, path.stat().st_mtime_ns

    def _place(self, name: str) -> tuple[Path, int, int]:
        found = self._find(name)
        if found is None:
            raise DatasetError(f"{self.path}: no image {name}")
        return found

    def _find(self, name: str) -> tuple[Path, int, int] | None:
        """Return where the image lies: file, offset and size in bytes (-1: to the end)."""
        for candidate in (str(PurePosixPath(name)), PurePosixPath(name).name):
            if self._members is not None and candidate in self._members:
                return self.path, *self._members[candidate]
            if self._members is None and (self.path / candidate).is_file():
                return self.path / candidate, 0, -1
        return None


def _index_tar(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and size of each regular file, by its name and by its name's last part."""
    try:
        with tarfile.open(path, "r:") as tar:
            files = [member for member in tar if member.isreg()]
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(
            f"{path}: neither a directory nor an uncompressed tar ({error})"
        ) from error
    places = {str(PurePosixPath(file.name)): (file.offset_data, file.size) for file in files}
    # A last part that several files share would give the wrong picture: leave it out.
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

    def read(self, index: int) -> bytes:
        """Return the bytes of the image file of `items[index]`."""
        store, image = self.items[index]
        return self.stores[store].read(image.name)


def load_split(images: Sequence[Path], captions: Sequence[Path], split: str | None) -> Split:
    """Pair image stores (directories or tars) with caption files, one to one, and check them.

    Raises DatasetError if a captioned image is in no store, or a file is malformed.
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
            f"{store.path}: {len(missing)} images captioned in {path} are not there "
            f"(such as {', '.join(missing[:3])}); add the files or remove their captions"
        )


def decode_split(split: Split, size: int, threads: int) -> npt.NDArray[np.uint8]:
    """Decode every image of a split: uint8 [N, size, size, 3], RGB, in the order of `items`.

    Raises DatasetError, naming the image, if one cannot be decoded.
    """
    pixels = np.empty((len(split), size, size, 3), dtype=np.uint8)

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
        for _ in tqdm(done, total=len(split), desc="decode", unit="image", disable=None):
            pass
    return pixels
