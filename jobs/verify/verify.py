"""verify_table: everything in OUT, checked in memory that does not grow with the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from captioner.jobs.errors import TemporaryError
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.storage.temporary import TemporaryFolder
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.verify.embeddings import Embedded
from captioner.jobs.verify.files import Rows, TableFile, check_other_entries, read_table
from captioner.jobs.verify.findings import Kind, Sampled, Scope, Verification
from captioner.jobs.verify.index import check_exports, check_index
from captioner.jobs.verify.keys import Keys, merged_files
from captioner.jobs.verify.leftovers import check_leftovers, check_thresholds
from captioner.jobs.verify.repair import repair_table
from captioner.jobs.verify.reviews import Reviews, check_calibrations
from captioner.jobs.verify.rows import check_rows
from captioner.jobs.verify.runs import Runs
from captioner.jobs.verify.sample import Choice, Sample

MOVING = (  # kinds of findings that a command at work makes meaningless
    *(Kind.KEY, Kind.THRESHOLD, Kind.RUN),
    *(Kind.EMBEDDING, Kind.INDEX, Kind.LEFT),
)


def verify_table(
    out: str | Path, choice: Choice | None = None, *, repair: bool = False
) -> Verification:
    """Verify the table in OUT and what belongs to it; caption a sample again if there is a choice.

    With `repair`, repair what can be repaired safely, and then verify again. If a run is at work,
    only files and their rows are verified, as others change meanwhile. Raise UsageError without a
    table, TemporaryError if a store does not answer or, to repair, if a run is at work.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        folder.require_table()
        if not repair:
            return _verify(folder, choice)
        if holder := folder.storage.holder(folder.lock):
            message = f"{folder.root} is in use by {holder}; try again when that run has ended"
            raise TemporaryError(message)
        with _scope(folder) as scope:
            _Verifying(scope, None).run()
            repaired = repair_table(scope)
        return replace(_verify(folder, choice), repaired=repaired)


def _verify(out: OutFolder, choice: Choice | None) -> Verification:
    with _scope(out) as scope:
        return _Verifying(scope, choice).run()


@contextmanager
def _scope(out: OutFolder) -> Iterator[Scope]:
    with TemporaryFolder() as folder:
        yield Scope(out, Path(folder), _versions(out))


def _versions(out: OutFolder) -> dict[str, str]:
    return out.storage.versions(out.captions, "*.parquet")


class _Verifying:
    """One verification; the table is read once."""

    def __init__(self, scope: Scope, choice: Choice | None) -> None:
        self.scope, self.out = scope, scope.out
        self.at_work = self._holder()
        self.paths: list[OutPath] = [*self.out.table_files()]
        self.files: list[TableFile] = []
        self.keys, self.merged = Keys(scope, self.paths), self._merged()
        self.runs, self.embedded, self.reviews = Runs(scope), Embedded(scope), Reviews(scope)
        self.sample = Sample(scope, choice) if choice else None

    def run(self) -> Verification:
        """Verify everything that stands still."""
        check_other_entries(self.scope)
        self._read()
        check_calibrations(self.scope)
        check_exports(self.scope)
        if self._stands_still():
            self._check_all()
        if not self._stands_still():
            self.at_work = self.at_work or self._holder() or "another command"
            self.scope.findings.drop(*MOVING)
        return self._result(self.sample.check() if self.sample else None)

    def _read(self) -> None:
        for part in read_table(self.scope, self.paths):
            if isinstance(part, TableFile):
                self.files.append(part)
                if self.sample:
                    self.sample.note(part)
            else:
                self._add(part)

    def _add(self, rows: Rows) -> None:
        check_rows(self.scope, rows)
        if rows.file.path.name in self.merged:  # another file has them, too
            return
        for consumer in (self.keys, self.runs, self.embedded, self.reviews, self.sample):
            if consumer:
                consumer.add(rows)

    def _check_all(self) -> None:
        """Check what several files say together."""
        images = self.keys.check()
        self.runs.check()
        self.embedded.check()
        self.reviews.check()
        check_thresholds(self.scope, self.files)
        check_leftovers(self.scope)
        if not self.scope.is_partial:
            check_index(self.scope, images)

    def _merged(self) -> frozenset[str]:
        with self.scope.reading(Kind.FILE, self.out.merge_journal, "see the file that it names"):
            return merged_files(self.out)
        return frozenset()

    def _holder(self) -> str | None:
        return self.out.storage.holder(self.out.lock)

    def _stands_still(self) -> bool:
        """Return whether nobody has changed the table since the verification began."""
        is_at_work = self.at_work or self.scope.moved or self._holder()
        return not is_at_work and _versions(self.out) == self.scope.versions

    def _result(self, sampled: Sampled | None) -> Verification:
        found = self.scope.findings
        return Verification(
            table=str(self.out.captions),
            files=len(self.paths),
            rows=self.keys.rows,
            at_work=self.at_work,
            counts=dict(found.counts),
            faults=found.faults,
            harmless_counts=dict(found.harmless_counts),
            harmless=found.harmless,
            sample=sampled,
        )
