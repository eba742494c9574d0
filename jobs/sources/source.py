"""A source: the stream of its image records."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

BATCH_ROWS = 10_000  # image records in a batch, at most
Batches = Iterator[pa.RecordBatch]
Records = Iterator[tuple[str, str | None]]  # URI and version
Scope = Callable[[str], bool]  # of URIs


@dataclass(frozen=True)
class Source:
    """The images of a source: batches with the columns of `schema`, to be read once.

    `skipped` counts, by reason, what was found but is not an image; it grows while the batches are
    read. `scope` returns whether the source would list an image with a given URI if it existed.
    """

    schema: pa.Schema
    batches: Batches
    skipped: Counter[str] = field(default_factory=Counter)
    scope: Scope = lambda _uri: True
