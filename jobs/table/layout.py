"""The paths of everything in OUT.

OUT/captions/*.parquet           the caption table, and nothing else
OUT/reviews/*.jsonl              what people decided (reviews.py); no run touches it
OUT/answers/<captioner>-*.json   paid answers whose rows are not in the table yet (answers.py)
OUT/calibrations/*.json          calibrations that do not lie beside a model (calibrations.py)
OUT/exports/*.sqlite             what was exported where (publish/export/record.py)
OUT/embeddings/*.parquet         what images look like (embeddings.py); may be deleted
OUT/damaged/*.parquet            files that `captioner verify --repair` took out of the table
OUT/index.sqlite                 what `captioner search` searches; may be deleted
OUT/index.found.html             the page of `captioner search --open`; may be deleted
OUT/report.html                  a report about the whole table
OUT/runs/<run_id>/               job.toml, report.json, report.html, events.jsonl
OUT/runs/<run_id>/replacements/  rows that replace others when the run ends (replace.py)
OUT/runs/<run_id>/scratch/       the plan, an index, unfinished files; removed when the run ends
OUT/runs/.lock                   the lock of the run at work (storage/backends/)
OUT/runs/.fence                  which worker may still commit (commits/fence.py)
OUT/runs/.threshold.json         exists while rows are marked by another threshold (threshold.py)
OUT/runs/.swap.json              exists while files are merged (compaction/merge_journal.py)
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from captioner.jobs.errors import UsageError, with_remedy
from captioner.jobs.storage.backends.backend import Backend, backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import job_errors

_TIME = "%Y%m%dT%H%M%S-%f"


@dataclass(frozen=True)
class OutFolder:
    """OUT, the folder of one caption table and its runs."""

    root: OutPath

    @property
    def storage(self) -> Backend:
        return backend_of(self.root)

    @property
    def captions(self) -> OutPath:
        return self.root / "captions"

    @property
    def runs(self) -> OutPath:
        return self.root / "runs"

    @property
    def reviews(self) -> OutPath:
        return self.root / "reviews"

    @property
    def calibrations(self) -> OutPath:
        return self.root / "calibrations"

    @property
    def exports(self) -> OutPath:
        return self.root / "exports"

    @property
    def answers(self) -> OutPath:
        return self.root / "answers"

    @property
    def embeddings(self) -> OutPath:
        return self.root / "embeddings"

    @property
    def damaged(self) -> OutPath:
        return self.root / "damaged"

    @property
    def index(self) -> OutPath:
        return self.root / "index.sqlite"

    @property
    def lock(self) -> OutPath:
        return self.runs / ".lock"

    @property
    def fence(self) -> OutPath:
        return self.runs / ".fence"

    @property
    def new_threshold(self) -> OutPath:
        return self.runs / ".threshold.json"

    @property
    def merge_journal(self) -> OutPath:
        return self.runs / ".swap.json"

    @property
    def report_page(self) -> OutPath:
        return self.root / "report.html"

    def name_of(self, path: OutPath) -> str:
        """Return a file's path below OUT."""
        return "/".join(path.parts[len(self.root.parts) :])

    def require_table(self) -> None:
        """Raise UsageError if there is no table."""
        if not self.storage.is_folder(self.captions):
            raise UsageError(f"{self.root} holds no caption table (no folder {self.captions})")

    def table_files(self) -> Sequence[OutPath]:
        """List the files of the table, sorted by name: by run, then by partition."""
        return self.storage.files(self.captions, "*.parquet")

    def table_sizes(self) -> list[int]:
        """List the bytes of the files of the table."""
        return self.storage.sizes(self.captions, "*.parquet")

    def new_run(self) -> "RunFolder":
        """Return the folder of a run that starts now.

        Its id sorts after those of earlier runs, even if their clock was ahead of this one. Raise
        UsageError if the folder of runs cannot be read, TemporaryError if the store fails.
        """
        try:
            with job_errors(self.root):
                names = [path.name for path in self.storage.files(self.runs, "[0-9]*")]
        except OSError as error:
            raise UsageError(f"cannot read {self.runs}: {with_remedy(error)}") from error
        time = max([datetime.now(UTC), *map(_after, names)])
        return RunFolder(self, f"{time:{_TIME}}-{secrets.token_hex(2)}")


@dataclass(frozen=True)
class RunFolder:
    """OUT/runs/<run_id>, one execution of a job."""

    out: OutFolder
    run_id: str

    @property
    def storage(self) -> Backend:
        return self.out.storage

    @property
    def root(self) -> OutPath:
        return self.out.runs / self.run_id

    @property
    def job_file(self) -> OutPath:
        return self.root / "job.toml"

    @property
    def report(self) -> OutPath:
        return self.root / "report.json"

    @property
    def report_page(self) -> OutPath:
        return self.root / "report.html"

    @property
    def events(self) -> OutPath:
        return self.root / "events.jsonl"

    @property
    def scratch(self) -> OutPath:
        return self.root / "scratch"

    @property
    def replacements(self) -> OutPath:
        return self.root / "replacements"

    @property
    def known(self) -> OutPath:
        """The index of captioned images, see pipeline/hash_index.py."""
        return self.scratch / "known"

    def part(self, name: str, *, replaces: bool = False) -> OutPath:
        """Return the file of a part, which waits in `replacements` if it `replaces` rows."""
        folder = self.replacements if replaces else self.out.captions
        return folder / f"{self.run_id}-{name}.parquet"

    def started_marker(self, key: str) -> OutPath:
        """Return the file that exists while a worker runs the task with this key."""
        return self.scratch / f"{key}.started"

    def create(self) -> None:
        """Make the folders that a run writes to."""
        for folder in (self.scratch, self.out.captions):
            self.storage.make_folder(folder)


def _after(run_id: str) -> datetime:
    """Return the moment after a run's start, or the first one if the id is none of a run."""
    try:
        start = datetime.strptime(run_id.rpartition("-")[0], _TIME).replace(tzinfo=UTC)
        return start + timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC)
