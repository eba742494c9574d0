"""Sources without images: an error, or allowed, as for a prefix of a nightly job."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from captioner.jobs.errors import EmptySource
from captioner.jobs.messages import summed_up
from captioner.jobs.sources.source import Batches, Source
from captioner.jobs.storage.file_types import NO_EXTENSION
from captioner.schemas.image_record import plan_schema


def no_images(source: str, skipped: Mapping[str, int]) -> EmptySource:
    """Return the error about a source without images: what else it has, and what to do."""
    others = f" (skipped: {summed_up(skipped)})" if skipped else ""
    remedies = ["another SOURCE", "--empty-ok if it may be empty"]
    if any(reason.startswith(("not opened", NO_EXTENSION)) for reason in skipped):
        remedies.insert(1, "--any-extension if these are images")
    *first, last = remedies
    message = f"no images in {source}{others}: give {', '.join(first)}, or {last}"
    return EmptySource(message, skipped)


def never_empty(source: Source, name: str) -> Source:
    """Return the same source, whose batches end with EmptySource if there were no images."""

    def batches() -> Batches:
        is_empty = True
        for batch in source.batches:
            is_empty = is_empty and not batch.num_rows
            yield batch
        if is_empty:
            raise no_images(name, source.skipped)

    return replace(source, batches=batches())


def maybe_empty(opened: Callable[[], Source], *, empty_ok: bool) -> Source:
    """Return a source that is opened; if `empty_ok`, one without images is no error."""
    if not empty_ok:
        return opened()
    try:
        source = opened()
    except EmptySource as error:
        return Source(plan_schema(), iter(()), Counter(error.skipped))

    def batches() -> Batches:
        try:
            yield from source.batches
        except EmptySource as error:
            source.skipped.update(
                {r: n for r, n in error.skipped.items() if r not in source.skipped}
            )

    return replace(source, batches=batches())
