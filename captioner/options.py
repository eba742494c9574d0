"""CaptionerOptions: which captioner, and how it works. Importing this does not import torch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.model_directory import CONFIG
from captioner.search_options import SearchOptions

HF, OPENAI = "hf:", "openai:"
SEND_PIXELS = 512
PRECISIONS = ("auto", "float32", "float16", "bfloat16", "int8")
_LANGUAGE = re.compile(r"[a-z]{2}")


@dataclass(frozen=True)
class CaptionerOptions:
    """A captioner to load.

    `checkpoint` is a bundled model, a model directory, `hf:` with a name or directory of Hugging
    Face, or `openai:` with the name of a model that a server has. `device` is auto, cpu or cuda.
    `precision` is one of PRECISIONS (see captioner/precision.py).
    `language` is an ISO 639-1 code. `max_pixels` limits the images, as in ImageLimits. `embeddings`
    are made by models of this package only. The other fields concern models of Hugging Face
    (`trust_remote_code`), servers (`send_pixels`, the longer side of the images that are sent;
    `base_url`, `api_key`), or both (`prompt`). `calibration` has the values of a calibration that
    does not lie beside the model.
    """

    checkpoint: str = "flickr8k"
    device: str = "auto"
    precision: str = "auto"
    search: SearchOptions = field(default_factory=SearchOptions)
    language: str = "en"
    max_pixels: int | None = None
    embeddings: bool = False
    prompt: str | None = None
    trust_remote_code: bool = False
    send_pixels: int = SEND_PIXELS
    calibration: Mapping[str, object] | None = None
    base_url: str | None = field(default=None, repr=False)  # may hold a password
    api_key: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """HF, OPENAI, or "" for a model of this package."""
        return next((kind for kind in (HF, OPENAI) if self.checkpoint.startswith(kind)), "")

    @property
    def name(self) -> str:
        """The checkpoint without its kind."""
        return self.checkpoint.removeprefix(self.kind)

    @property
    def directory(self) -> Path | None:
        """The directory of a model, in which a calibration may lie; None if it was named else."""
        directory = Path(self.name)
        is_model = self.kind != OPENAI and (directory / CONFIG).is_file()
        return directory if is_model else None

    @property
    def asks_server(self) -> bool:
        """Whether each caption is a request that may cost money."""
        return self.kind == OPENAI


def server_from_environment() -> dict[str, Any]:
    """Return `base_url` and `api_key` as the environment has them, under their customary names."""
    return {
        "base_url": os.environ.get("OPENAI_BASE_URL") or None,
        "api_key": os.environ.get("OPENAI_API_KEY") or None,
    }


def is_language(value: object) -> bool:
    """Return whether a value has the form of an ISO 639-1 code: "zh", not "ZH" or "zh-CN"."""
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None
