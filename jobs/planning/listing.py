"""The images of a job, as its options choose them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from captioner.jobs.config.job import JobConfig
from captioner.jobs.messages import TEXT
from captioner.jobs.sources.chosen import chosen_images
from captioner.jobs.sources.empty import maybe_empty, never_empty
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.several import open_sources
from captioner.jobs.sources.source import Batches, Source


class Counting(Protocol):
    """What counts the images `listed` so far, and knows the `phase` of a job."""

    listed: int
    phase: str


def list_images(config: JobConfig) -> Source:
    """Return the images of a job; they are counted on stderr while they are read.

    UsageError if there is nothing to read, TemporaryError if a store does not answer.
    """
    options = SourceOptions(
        config.any_extension,
        tuple(config.exclude or ()),
        config.uri_column,
        config.image_column,
        config.empty_ok,
    )
    source = open_sources(config.sources, options)
    if (only := config.only) is not None:
        chosen = partial(chosen_images, source, str(only))
        source = maybe_empty(chosen, empty_ok=config.empty_ok)
    if not config.empty_ok:
        source = never_empty(source, _name(config.sources))
    return with_progress(source, config.quiet or config.log_format != TEXT)


def _name(sources: Sequence[str | Path]) -> str:
    return str(sources[0]) if len(sources) == 1 else f"any of {len(sources)} SOURCEs"


def with_progress(source: Source, quiet: bool) -> Source:
    """Return the same source, which counts the images found on stderr if that is a terminal."""

    def batches() -> Batches:
        with tqdm(
            desc="listing", unit=" images", leave=False, disable=True if quiet else None
        ) as bar:
            for batch in source.batches:
                bar.update(batch.num_rows)
                yield batch

    return replace(source, batches=batches())


def counted(source: Source, by: Counting, *, then: str) -> Source:
    """Return the same source, whose images are counted while they are read; `then` follows."""

    def batches() -> Batches:
        for batch in source.batches:
            by.listed += batch.num_rows
            yield batch
        by.phase = then

    return replace(source, batches=batches())
