"""TOML files of options: reading one, and the values of one that is written."""

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from captioner.jobs.errors import UsageError


def read_toml(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read the keys and values of a TOML file; UsageError for a key that is not `known`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    check_keys(values, known, str(path))
    return values


def check_keys(values: Iterable[str], known: Collection[str], where: str) -> None:
    """Raise UsageError for a key that is not `known`."""
    for key in values:
        if key not in known:
            nearest = get_close_matches(key, known, n=1, cutoff=0)
            raise UsageError(f"{where}: unknown key {key!r}; did you mean {nearest[0]!r}?")


def toml_value(value: object) -> str:
    """Format a value as TOML; JSON's format is valid, except for tables, and DEL in strings."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_value(k)} = {toml_value(v)}' for k, v in value.items())} }}"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")
