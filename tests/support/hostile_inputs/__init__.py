"""Manifests, Parquet files and archives that are damaged, odd, or small bombs, made when needed.

`HOSTILE` has what writes each, by the name of its file; `source_of` says how to name it as SOURCE.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.hostile_inputs.archives import ARCHIVES
from tests.support.hostile_inputs.parquet_files import PARQUET_FILES
from tests.support.hostile_inputs.text_files import TEXT_FILES

HOSTILE: Mapping[str, Callable[[Path], object]] = {**TEXT_FILES, **PARQUET_FILES, **ARCHIVES}


def write_hostile(folder: Path, name: str) -> str:
    """Write one of the files into a folder, and return it as SOURCE."""
    HOSTILE[name](folder / name)
    return source_of(folder / name)


def source_of(path: Path) -> str:
    return f"zip://**::{path}" if path.suffix == ".zip" else str(path)
