"""Caption files: what people wrote about images, in the formats of the common data sets."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.errors import DatasetError
from captioner.lstm.vocabulary import tokenize


@dataclass(frozen=True)
class CaptionedImage:
    """The name of an image in its store, and its captions: at least one, of at least one word."""

    name: str
    captions: tuple[str, ...]


def read_captions(path: Path, split: str | None = None) -> list[CaptionedImage]:
    """Read a caption file in its order, detecting the format from the content.

    Formats: JSON lines (`{"image": name, "captions": [...]}`), COCO `captions_*.json`, Karpathy
    `dataset_*.json` and Flickr `.token` files. `split` selects one split of a Karpathy file
    ("train" includes "restval"); by default all are read.

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
        # Unlike loads, raw_decode does not accept leading white space.
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
    # Not splitlines: it also splits at characters that JSON allows inside strings.
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
        raise DatasetError(f"{path}: annotations of image {next(iter(captions))}, not in 'images'")


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
