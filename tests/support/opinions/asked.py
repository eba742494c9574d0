"""Captions of the same photographs by a first captioner and by a stand-in for a second one."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from captioner.image import decode_fitted
from captioner.openai.question import encode_jpeg
from captioner.options import SEND_PIXELS
from captioner.training.data.dataset import Split, load_split
from tests.support.chat import serving
from tests.support.commands import command

STAND_IN = "openai:stand-in"
HALF = "50%"
REFERENCES = 5  # of each image
Rows = dict[str, dict[str, Any]]  # of a table, by the name of the image
Embeddings = dict[str, list[float]]


@dataclass(frozen=True)
class Opinions:
    """What two captioners say of N images, in one draw for each of their references.

    In draw d, the second captioner answers with reference d of the image; both captions are scored
    against the others.
    """

    first: list[dict[str, Any]]  # rows of the table after the first captioner
    embeddings: list[list[float]]
    references: list[tuple[str, ...]]
    second: list[list[str]]  # the captions of the table after the second one was asked about all
    half: list[list[str]]  # after it was asked about half of the images

    def others(self, draw: int) -> list[tuple[str, ...]]:
        """Return the references of each image without the one that the second captioner says."""
        return [texts[:draw] + texts[draw + 1 :] for texts in self.references]

    @property
    def captions(self) -> list[str]:
        return [row["caption"] for row in self.first]

    @property
    def confidence(self) -> np.ndarray:
        return np.array([row["confidence"] for row in self.first])


def ask(images: Path, captions: Path, checkpoint: str, folder: Path) -> Opinions:
    """Caption images by `captioner run`, then again through a server, once for each reference.

    Images that have no references, or no caption by the first captioner, are left out. `folder`
    must be empty. Raise ValueError for an image with fewer than REFERENCES references.
    """
    split = load_split([images], [captions], None)
    if min(len(texts) for texts in split.captions) < REFERENCES:
        raise ValueError(f"{captions}: each image needs {REFERENCES} captions")
    first = folder / "first"
    _run(images, first, "--checkpoint", checkpoint, "--embeddings")
    rows = _rows(first)
    indices = [n for n in range(len(split)) if rows.get(_name(split, n), {}).get("caption")]
    names = [_name(split, n) for n in indices]
    sent = [_sent(split.read(n)) for n in range(len(split))]
    half, second = [], []
    for draw in range(REFERENCES):
        out = Path(shutil.copytree(first, folder / f"draw-{draw}"))
        said = {image: texts[draw] for image, texts in zip(sent, split.captions, strict=True)}
        half.append(_captions_after(images, out, HALF, said, names))
        second.append(_captions_after(images, out, "100%", said, names))
    vectors = _embeddings(first)
    return Opinions(
        first=[rows[name] for name in names],
        embeddings=[vectors[rows[name]["image_uri"]] for name in names],
        references=[split.captions[n][:REFERENCES] for n in indices],
        second=second,
        half=half,
    )


def _captions_after(
    images: Path, out: Path, share: str, said: dict[str, str], names: list[str]
) -> list[str]:
    """Return the captions of a table after a share of its images was sent to the stand-in.

    It answers with the texts of `said`, by the SHA-256 of the file that it is sent.
    """
    answers = out.with_suffix(".json")
    answers.write_text(json.dumps(said))
    options = ("--redo-share", share, "--checkpoint", STAND_IN)
    with serving("--answers", answers) as server:
        _run(images, out, *options, OPENAI_BASE_URL=server.url)
    rows = _rows(out)
    return [rows[name]["caption"] for name in names]


def _run(images: Path, out: Path, *options: str, **variables: str) -> None:
    line = command("run", images, "--out", out, "--quiet", *options)
    subprocess.run(line, env=os.environ | variables, check=True)


def _sent(image: bytes) -> str:
    """Return the SHA-256 of the JPEG file that a server is sent for an image."""
    return sha256(encode_jpeg(decode_fitted(image, SEND_PIXELS).pixels)).hexdigest()


def _name(split: Split, index: int) -> str:
    return PurePosixPath(split.items[index][1].name).name


def _rows(out: Path) -> Rows:
    """Read the rows of a table by the last part of the image's name."""
    rows = pq.read_table(out / "captions").to_pylist()
    uris = (row["image_uri"].removeprefix("tar://").partition("::")[0] for row in rows)
    return {PurePosixPath(uri).name: row for uri, row in zip(uris, rows, strict=True)}


def _embeddings(out: Path) -> Embeddings:
    table = pq.read_table(out / "embeddings", columns=["image_uri", "embedding"])
    return dict(zip(table["image_uri"].to_pylist(), table["embedding"].to_pylist(), strict=True))
