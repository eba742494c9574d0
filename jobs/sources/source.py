"""A source: the stream of its image records."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

Scope = Callable[[str], bool]  # of URIs


@dataclass(frozen=True)
class Source:
    """A listing: batches of `schema` (a plan's), to be read once.

    `skipped` counts, by reason, what was found and is no image; it grows while the batches are
    read. `scope` tells of any URI whether the source would list it if it were there.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    skipped: Counter[str] = field(default_factory=Counter)
    scope: Scope = lambda _uri: True
