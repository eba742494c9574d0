"""Each step alone, on one thread: fetch, decode, encode, search, word; and Pillow on its own."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.file_types import MAX_BYTES
from tests.support.speed.figures import Row, ratio, seconds_of
from tests.support.speed.photographs import Photographs
from tests.support.speed.subject import Subject

IMAGES = {"cpu": 64, "cuda": 1024}  # of each set at most
Thing = Callable[[], object]
Times = Mapping[str, Sequence[float]]  # seconds of an image in each round, by step


def step_things(subject: Subject, sets: Photographs) -> dict[str, Callable[[], float]]:
    """Return functions that return the seconds an image takes in a step, by name.

    Fetching, decoding and Pillow have one for each set of photographs.
    """
    things: dict[str, Callable[[], float]] = {}
    for size, paths in sets.items():
        images = some(subject, paths)
        for name, thing in _reading(subject, images).items():
            things[f"{name} {size}"] = partial(_per_image, thing, len(images), subject)
    images = some(subject, next(iter(sets.values())))
    for name, thing in _network(subject, images).items():
        things[name] = partial(_per_image, thing, len(images), subject)
    return things


def some(subject: Subject, paths: Sequence[Path]) -> Sequence[Path]:
    """Return as many of the photographs as it takes to time a step."""
    return paths[: IMAGES[subject.captioner.device.type]]


def step_rows(times: Times) -> list[Row]:
    """Return a line for each step, in milliseconds; Pillow's is compared with ours."""
    rows = []
    for name, seconds in times.items():
        ours = times.get(name.replace("Pillow", "decode", 1)) if "Pillow" in name else None
        ratios = {"Pillow / ours": ratio(seconds, ours)} if ours else {}
        rows.append(Row(name, "ms an image", [1000 * value for value in seconds], ratios))
    return rows


def _per_image(thing: Thing, images: int, subject: Subject) -> float:
    return seconds_of(thing, subject.finish) / images


def _reading(subject: Subject, paths: Sequence[Path]) -> dict[str, Thing]:
    files = [path.read_bytes() for path in paths]
    return {
        "fetch": lambda: [_fetched(path) for path in paths],
        "decode": lambda: [subject.captioner.prepare(data) for data in files],
        "Pillow": lambda: [by_pillow(data, subject.captioner.image_size) for data in files],
    }


def _fetched(path: Path) -> str:
    return hashlib.sha256(fetch(str(path), MAX_BYTES)).hexdigest()


def by_pillow(data: bytes, side: int) -> Image.Image:
    """Decode a file the usual way to a picture of `side` x `side` pixels."""
    return Image.open(io.BytesIO(data)).convert("RGB").resize((side, side))


def _network(subject: Subject, paths: Sequence[Path]) -> dict[str, Thing]:
    captioner = subject.captioner
    batches = pixel_batches(subject, paths)
    features = [captioner.encode(batch) for batch in batches]
    found = [captioner._search(grid) for grid in features]
    return {
        "encode": lambda: [captioner.encode(batch) for batch in batches],
        "search": lambda: [captioner._search(grid) for grid in features],
        "word": lambda: [[*captioner.captions(captioner.chosen(each))] for each in found],
    }


def pixel_batches(subject: Subject, paths: Sequence[Path]) -> list[np.ndarray]:
    """Return the pixels of photographs in batches of the captioner's size: [N, S, S, 3]."""
    captioner = subject.captioner
    pixels = [captioner.prepare(path.read_bytes()).pixels for path in paths]
    size = captioner.batch_size
    return [np.stack(pixels[first : first + size]) for first in range(0, len(pixels), size)]
