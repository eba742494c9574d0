"""Where everything lies in OUT.

OUT/captions/*.parquet      the caption table, and nothing else
OUT/runs/<run_id>/          job.toml, report.json, events.jsonl
OUT/runs/<run_id>/replacements/  rows that replace others when the run ends, see jobs/replace.py
OUT/runs/<run_id>/scratch/  the plan, an index, unfinished files, marks; gone when the run ends
OUT/runs/.lock  .fence      see jobs/locks.py
OUT/runs/.swap.json         there while files of the table are merged, see jobs/swap.py
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class OutFolder:
    """OUT, the folder of one caption table and its runs."""

    root: Path

    @property
    def captions(self) -> Path:
        return self.root / "captions"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def lock(self) -> Path:
        return self.runs / ".lock"

    @property
    def fence(self) -> Path:
        return self.runs / ".fence"

    @property
    def swap_journal(self) -> Path:
        return self.runs / ".swap.json"

    def name_of(self, path: Path) -> str:
        """A file's path below OUT."""
        return path.relative_to(self.root).as_posix()

    def table_files(self) -> list[Path]:
        """The files of the table, sorted by name: by run, then by partition."""
        return sorted(self.captions.glob("*.parquet"))

    def new_run(self) -> "RunFolder":
        """The folder of a run that starts now; ids sort by time."""
        return RunFolder(self, f"{datetime.now(UTC):%Y%m%dT%H%M%S-%f}-{secrets.token_hex(2)}")


@dataclass(frozen=True)
class RunFolder:
    """OUT/runs/<run_id>, one execution of a job."""

    out: OutFolder
    run_id: str

    @property
    def root(self) -> Path:
        return self.out.runs / self.run_id

    @property
    def job_file(self) -> Path:
        return self.root / "job.toml"

    @property
    def report(self) -> Path:
        return self.root / "report.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def replacements(self) -> Path:
        return self.root / "replacements"

    @property
    def known(self) -> Path:
        """The index of the captions that there are, see jobs/hash_index.py."""
        return self.scratch / "known"

    def part(self, name: str, *, replaces: bool = False) -> Path:
        """The file of a part: the table's, or with rows that are to replace others of the table."""
        folder = self.replacements if replaces else self.out.captions
        return folder / f"{self.run_id}-{name}.parquet"

    def mark(self, key: str) -> Path:
        """The file which is there while a worker is at the task of that key."""
        return self.scratch / f"{key}.started"

    def create(self) -> None:
        """Make the folders a run writes to."""
        self.scratch.mkdir(parents=True)
        self.out.captions.mkdir(exist_ok=True)
