"""What a process is, by its Python, its packages and the captioner's code.

A worker is sent this text and runs it, so that even one without the captioner can answer. It needs
no more than the standard library of any Python 3.
"""

import hashlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path


def describe(packages: "tuple[str, ...]") -> "dict[str, object]":
    """Return the versions of Python and of packages, None for absent ones, and the sources."""
    python = ".".join(map(str, sys.version_info[:2]))
    versions = {name: _version(name) for name in packages}
    return {"python": python, "packages": versions, "sources": sources()}


def sources() -> "str | None":
    """Return a hash of the captioner's code in this environment; None if it is not installed."""
    found = find_spec("captioner")
    if found is None or not found.origin:
        return None
    root, digest = Path(found.origin).parent, hashlib.sha256()
    folders = os.walk(root, followlinks=True)
    paths = (Path(folder, name) for folder, _, names in folders for name in names)
    for path in sorted(path for path in paths if path.suffix == ".py"):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> "str | None":
    try:
        return version(package).split("+")[0]  # builds for a CPU or a GPU are the same version
    except PackageNotFoundError:
        return None
