"""The decisions in force, read once for all queues of a session."""

import threading
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import Decisions, in_force, in_order, read_reviews
from captioner.schemas.review import REVIEW_SCHEMA


class Decided:
    """The reviews in OUT; files that have not grown since are not read again.

    It may be used by several threads.
    """

    def __init__(self, out: OutFolder) -> None:
        self.out = out
        self._versions: Mapping[str, str] = {}
        self._reviews = REVIEW_SCHEMA.empty_table()
        self._decisions = in_force(self._reviews)
        self._lock = threading.Lock()

    def decisions(self) -> Decisions:
        """Return the decisions in force; raise UsageError for a foreign file."""
        with self._lock:
            versions = self.out.storage.versions(self.out.reviews, "*.jsonl")
            if versions != self._versions:
                self._reviews = self._grown(versions)
                self._decisions = in_force(self._reviews)
                self._versions = versions
            return self._decisions

    def _grown(self, versions: Mapping[str, str]) -> pa.Table:
        """Return the reviews that are known, and those in files that grew since."""
        before = self._versions if self._versions.keys() <= versions.keys() else {}
        known = self._reviews if before else REVIEW_SCHEMA.empty_table()
        grown = [self.out.reviews / name for name in versions if before.get(name) != versions[name]]
        found = read_reviews(self.out, grown)
        is_known = pc.is_in(found["id"], value_set=known["id"].combine_chunks())
        return in_order(pa.concat_tables([known, found.filter(pc.invert(is_known))]))
