"""The records of runs, against the rows that the table has of them.

A run's rows go as later runs replace or prune them, and compaction moves them to other files. So a
run may have fewer rows in the table than it has committed, but no fewer than later runs explain. A
run that failed explains what it committed, and nothing else unless it was to prune.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from captioner.jobs.errors import ExitCode
from captioner.jobs.storage.backends.backend import open_ahead
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.jobs.verify.files import Rows
from captioner.jobs.verify.findings import Kind, Scope
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import JobReport

_WHOLE = (ExitCode.DONE, ExitCode.TOO_MANY_FAILURES)  # of runs that did all they report
_LOST = "the next run captions these images again"
_DAMAGED = "remove it: it only tells what the run did"
_NAMED = 3  # lost parts
_UNREAD = "the rows of runs were not counted, because files of the table cannot be read whole"
_SET_ASIDE = "set those files aside, and verify again"
_PRUNED = "was to prune and did not end, so missing rows of earlier runs were not noticed"
_ANYWAY = "the next run captions images without a row anyway"


@dataclass(frozen=True)
class _Run:
    """A run with what it committed: rows by status, by name of its part; and its report.

    `prunes` says whether it was to remove rows of images that are no longer listed.
    """

    folder: RunFolder
    parts: Mapping[str, Mapping[str, int]]
    report: JobReport | None
    prunes: bool

    @property
    def lasting(self) -> int:
        """The number of rows that the run put into the table for certain.

        A failure may not have replaced an older caption.
        """
        sums = self._committed
        if self.report is not None:  # without parts that were taken back
            sums = Counter(self.report.statuses)
        is_first = self.report is not None and not self.report.redone
        return self.report.images if is_first and self.report else sums[Status.OK]

    @property
    def is_whole(self) -> bool:
        """Whether the run did all that it reports."""
        return self.report is not None and self.report.exit_code in _WHOLE

    @property
    def may_have_pruned(self) -> bool:
        """Whether the run may have removed rows that no report counts."""
        return self.prunes and not self.is_whole

    def explains(self, there: int) -> int:
        """Return how many rows of earlier runs this one may have replaced or removed.

        A killed run may have committed parts of which only its rows `there` tell.
        """
        if self.report and self.is_whole:
            return self.report.images + self.report.pruned
        return max(self._committed.total(), there)

    @property
    def _committed(self) -> Counter[str]:
        sums = Counter[str]()
        for statuses in self.parts.values():
            sums.update(statuses)
        return sums


class Runs:
    """The rows of the table, counted by the run that wrote them."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._rows = Counter[str]()

    def add(self, rows: Rows) -> None:
        """Count rows."""
        for count in rows.table["run_id"].value_counts().to_pylist():
            self._rows[count["values"]] += count["counts"]

    def check(self) -> None:
        """Find records that cannot be read, and rows that are missing or too many."""
        runs = list(self._read())
        self._add_replacements()
        if self._scope.is_partial:
            self._scope.harmless(Kind.RUN, self._scope.out.runs, _UNREAD, _SET_ASIDE)
            return
        explained = 0
        for number, run in enumerate(reversed(runs), 1):
            self._compare(run, explained)
            if run.may_have_pruned and number < len(runs):
                self._scope.harmless(Kind.RUN, run.folder.root, _PRUNED, _ANYWAY)
                return
            explained += run.explains(self._rows[run.folder.run_id])

    def _compare(self, run: _Run, explained: int) -> None:
        there = self._rows[run.folder.run_id]
        if (missing := run.lasting - there) > explained:
            self._tell_lost(run, missing, explained)
        if run.report and run.is_whole and there > run.report.images:
            what = f"the table has {there:,} rows of this run, which reports fewer: "
            what += f"{run.report.images:,}"
            self._scope.fault(Kind.RUN, run.folder.root, what, "see which file is a copy")

    def _read(self) -> Iterator[_Run]:
        """Read the records of all runs, in the order of time."""
        out = self._scope.out
        for entry in out.storage.files(out.runs, "[0-9]*"):
            folder = RunFolder(out, entry.name)
            if out.storage.is_folder(folder.root):
                yield _Run(folder, self._parts(folder), self._report(folder), _prunes(folder))

    def _report(self, run: RunFolder) -> JobReport | None:
        if not run.storage.exists(run.report):
            return None
        with self._scope.reading(Kind.RUN, run.report, _DAMAGED):
            return JobReport.from_json(run.storage.read_bytes(run.report).decode())
        return None

    def _parts(self, run: RunFolder) -> dict[str, Mapping[str, int]]:
        """Read which parts a run has committed; its last line may be cut off, if it was killed."""
        if not run.storage.exists(run.events):
            return {}
        lines = run.storage.read_bytes(run.events).split(b"\n")
        parts: dict[str, Mapping[str, int]] = {}
        for number, line in enumerate(filter(None, lines), 1):
            try:
                event = json.loads(line)
                if event["event"] == "committed":
                    parts[event["part"]] = event["statuses"]
            except (ValueError, TypeError, KeyError) as error:
                if line is not lines[-1]:
                    what = f"line {number} is no event ({error!r})"
                    self._scope.fault(Kind.RUN, run.events, what, _DAMAGED)
        return parts

    def _add_replacements(self) -> None:
        """Count the rows that wait to replace others."""
        out = self._scope.out
        for folder in out.storage.folders_below(out.runs, "replacements"):
            for path, opened in open_ahead(out.storage.files(folder, "*.parquet")):
                with self._scope.reading(Kind.FILE, path, f"remove it: {_LOST}"):
                    column = pq.read_table(opened(), columns=["run_id"])["run_id"]
                    self._rows.update(column.to_pylist())

    def _tell_lost(self, run: _Run, missing: int, explained: int) -> None:
        gone = [path.name for path in _gone_parts(run)]
        named = ", ".join(gone[:_NAMED]) + (", ..." if len(gone) > _NAMED else "")
        later = f", of which later runs explain {explained:,}" if explained else ""
        where = f" (not there: {named})" if gone else ""
        what = f"{missing:,} of the {run.lasting:,} rows that this run committed are not in the "
        self._scope.fault(Kind.RUN, run.folder.root, f"{what}table{later}{where}", _LOST)


def _prunes(run: RunFolder) -> bool:
    """Return whether a run was to prune; one that has described no job has not begun."""
    try:
        return bool(tomllib.loads(run.storage.read_bytes(run.job_file).decode()).get("prune"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True  # nobody knows


def _gone_parts(run: _Run) -> Sequence[OutPath]:
    there = {path.name for path in run.folder.out.table_files()}
    parts = (run.folder.part(name) for name in run.parts)
    return [path for path in parts if path.name not in there]
