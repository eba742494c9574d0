"""The images of a source that a list names: `--only`."""

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from captioner.jobs.errors import EmptySource
from captioner.jobs.sources.manifests.streams import read_or_refuse, text_lines
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import STANDARD_INPUT, image_uri, listed_uri, parent_folder
from captioner.schemas.image_record import IMAGE_URI

NOT_IN_SOURCE = "named by --only, but not in SOURCE"  # a reason for skipping


def chosen_images(source: Source, listed_in: str) -> Source:
    """Return the images of a source that a list names, one URI a line; "-" is standard input.

    No other image counts as vanished. Relative paths are relative to the folder of the list. The
    URIs are in memory. UsageError for an empty list, and while the batches are read if the source
    has none of the images.
    """
    wanted = frozenset(_uris(listed_in))
    if not wanted:
        raise EmptySource(f"{listed_in} names no image for --only")
    skipped = source.skipped

    def batches() -> Batches:
        found = set[str]()
        for batch in source.batches:
            uris = batch.column(IMAGE_URI).to_pylist()
            found.update(wanted.intersection(uris))
            yield batch.filter(pa.array([uri in wanted for uri in uris], pa.bool_()))
        if not found:
            images = "the only image" if len(wanted) == 1 else f"any of the {len(wanted):,} images"
            message = f"SOURCE does not have {images} that {listed_in} names"
            raise EmptySource(message, {NOT_IN_SOURCE: len(wanted)})
        skipped[NOT_IN_SOURCE] += len(wanted) - len(found)

    return replace(source, batches=batches(), scope=lambda _uri: False)


def _uris(listed_in: str) -> Iterator[str]:
    if listed_in == STANDARD_INPUT:
        text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", errors="surrogateescape")
        lines, folder = [line.rstrip("\r\n") for line in text], str(Path.cwd())
    else:
        lines = read_or_refuse(listed_in, lambda: [line for _, line in text_lines(listed_in)])
        folder = parent_folder(image_uri(listed_in))
    return (without_signature(listed_uri(line, folder)) for line in lines if line.strip())
