"""Sources that may be empty, as a prefix of a nightly job may be."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from captioner.jobs.errors import EmptySource
from captioner.jobs.sources.source import Batches, Source
from captioner.schemas.image_record import plan_schema


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
