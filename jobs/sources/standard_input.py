"""A manifest on standard input: copied to a file, because it has to be read twice."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfileobj

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.manifests.manifest import manifest_source
from captioner.jobs.sources.manifests.streams import MAX_LINE
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.schemas.image_record import IMAGE_URI


def standard_input_source(options: SourceOptions) -> Source:
    """Return the images that a manifest on standard input lists.

    It is text with a path or URL on each line, unless its first line says otherwise: a JSON object
    begins JSON lines, and names of columns, one of them that of the images, begin CSV or TSV.
    Relative paths are relative to the working directory.
    """
    folder = TemporaryFolder()
    copy = Path(folder.name) / "standard-input"
    with copy.open("wb") as file:
        copyfileobj(sys.stdin.buffer, file)
    column = options.uri_column or IMAGE_URI
    manifest = copy.rename(copy.with_suffix(_suffix(copy, column)))
    with _called_standard_input(manifest):
        source = manifest_source(
            [str(manifest)], str(Path.cwd()), options.uri_column, options.given_exclusion
        )

    def batches() -> Batches:
        with folder, _called_standard_input(manifest):
            yield from source.batches

    return replace(source, batches=batches())


@contextmanager
def _called_standard_input(copy: Path) -> Iterator[None]:
    """Let errors name standard input instead of its copy."""
    try:
        yield
    except UsageError as error:
        error.args = (str(error).replace(str(copy), "standard input"), *error.args[1:])
        raise


def _suffix(manifest: Path, column: str) -> str:
    """Return the extension of a manifest's format, by its first line."""
    with manifest.open("rb") as file:
        line = file.readline(MAX_LINE).decode("utf-8-sig", errors="replace").strip()
    if line.startswith("{"):
        return ".jsonl"
    for suffix, separator in ((".tsv", "\t"), (".csv", ",")):
        if column in [name.strip('"') for name in line.split(separator)]:
            return suffix
    return ".txt"
