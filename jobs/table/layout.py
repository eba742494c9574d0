"""Where everything lies in OUT.

OUT/captions/*.parquet      the caption table, and nothing else
OUT/runs/<run_id>/          job.toml, report.json, events.jsonl
OUT/runs/<run_id>/replacements/  rows that replace others when the run ends, see replace.py
OUT/runs/<run_id>/scratch/  the plan, an index, unfinished files, markers; gone when the run ends
OUT/runs/.lock  .fence      see fence.py
OUT/runs/.swap.json         there while files of the table are merged, see merge_journal.py

OUT is a folder of this machine, or a prefix of an object store (see storage/paths.py).
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from captioner.jobs.storage.paths import OutPath, files, is_store, make_folder, sizes


@dataclass(frozen=True)
class OutFolder:
    """OUT, the folder of one caption table and its runs."""

    root: OutPath

    @property
    def captions(self) -> OutPath:
        return self.root / "captions"

    @property
    def runs(self) -> OutPath:
        return self.root / "runs"

    @property
    def lock(self) -> OutPath:
        return self.runs / ".lock"

    @property
    def fence(self) -> OutPath:
        return self.runs / ".fence"

    @property
    def swap_journal(self) -> OutPath:
        return self.runs / ".swap.json"

    def name_of(self, path: OutPath) -> str:
        """A file's path below OUT."""
        return "/".join(path.parts[len(self.root.parts) :])

    def table_files(self) -> Sequence[OutPath]:
        """The files of the table, sorted by name: by run, then by partition."""
        return files(self.captions, "*.parquet")

    def table_sizes(self) -> list[int]:
        """The bytes of each file of the table."""
        return sizes(self.captions, "*.parquet")

    def new_run(self) -> "RunFolder":
        """The folder of a run that starts now; ids sort by time."""
        return RunFolder(self, f"{datetime.now(UTC):%Y%m%dT%H%M%S-%f}-{secrets.token_hex(2)}")


@dataclass(frozen=True)
class RunFolder:
    """OUT/runs/<run_id>, one execution of a job."""

    out: OutFolder
    run_id: str

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
        """The index of the captions that there are, see pipeline/hash_index.py."""
        return self.scratch / "known"

    def part(self, name: str, *, replaces: bool = False) -> OutPath:
        """The file of a part: the table's, or with rows that are to replace others of the table."""
        folder = self.replacements if replaces else self.out.captions
        return folder / f"{self.run_id}-{name}.parquet"

    def handed_in(self, name: str, *, replaces: bool = False) -> OutPath:
        """Where a worker writes a part: on a store, the driver copies it from there."""
        part = self.part(name, replaces=replaces)
        return self.scratch / "parts" / part.name if is_store(part) else part

    def started_marker(self, key: str) -> OutPath:
        """The file that exists while a worker runs the task with that key."""
        return self.scratch / f"{key}.started"

    def create(self) -> None:
        """Make the folders a run writes to."""
        make_folder(self.scratch)
        make_folder(self.out.captions)
