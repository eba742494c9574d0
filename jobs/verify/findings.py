"""What is verified, and what is found: of each kind, some findings, and the number of all."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pyarrow as pa

from captioner.errors import CaptionerError
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.storage.failures import StoreError
from captioner.jobs.table.layout import OutFolder

SHOWN = 20  # findings of a kind that are kept; all are counted
READ_ERRORS = (
    *(pa.ArrowException, OSError, UsageError, CaptionerError),
    *(ValueError, TypeError, KeyError, AttributeError),
)


class Kind(StrEnum):
    """What a finding is about."""

    FILE = "file"  # of the table: damaged or foreign
    SCHEMA = "schema"  # columns, types and metadata of a file of the table
    ROW = "row"  # values that a row may not have
    KEY = "key"  # an image with several rows
    THRESHOLD = "threshold"  # rows that are marked by another one than the table's
    RUN = "run"  # the records of a run, against the rows of the table
    EMBEDDING = "embedding"
    REVIEW = "review"
    CALIBRATION = "calibration"
    INDEX = "index"  # and the records of exports
    SAMPLE = "sample"  # images that were captioned again
    LEFT = "left"  # what killed commands, or changed images, have left behind


def is_damage(error: Exception) -> bool:
    """Return whether an error of reading says that a file is damaged.

    A system call that fails, for want of a permission or of a healthy disk, does not. What Arrow
    calls an OSError, because a file is damaged, has no number.
    """
    return not isinstance(error, OSError) or error.errno is None


@dataclass(frozen=True)
class Finding:
    """Something in OUT that is not as it should be.

    `path` is below OUT, `what` says what is wrong, and `remedy` what to do. A finding that
    `is_harmless` is no fault: the next run deals with it, or nobody needs to.
    """

    kind: Kind
    path: str
    what: str
    remedy: str
    is_harmless: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass
class Findings:
    """The findings of a verification; of each kind, the first SHOWN."""

    counts: Counter[str] = field(default_factory=Counter)
    harmless_counts: Counter[str] = field(default_factory=Counter)
    _kept: list[Finding] = field(default_factory=list)

    def add(
        self, kind: Kind, path: str, what: str, remedy: str, *, is_harmless: bool = False
    ) -> None:
        """Count a finding, and keep it unless there are SHOWN of its kind."""
        counts = self.harmless_counts if is_harmless else self.counts
        counts[kind] += 1
        if counts[kind] <= SHOWN:
            self._kept.append(Finding(kind, path, what, remedy, is_harmless))

    def drop(self, *kinds: Kind) -> None:
        """Forget the findings of some kinds."""
        for kind in kinds:
            del self.counts[kind], self.harmless_counts[kind]
        self._kept = [each for each in self._kept if each.kind not in kinds]

    @property
    def faults(self) -> Sequence[Finding]:
        """The findings that are faults."""
        return [each for each in self._kept if not each.is_harmless]

    @property
    def harmless(self) -> Sequence[Finding]:
        """The other findings."""
        return [each for each in self._kept if each.is_harmless]


@dataclass
class Scope:
    """What is verified: OUT, a folder of this machine to work in, and what was found so far.

    `versions` are those that the files of the table had when the verification began.
    `unread` are files of the table whose rows could not all be read, with what to do; the
    `damaged` ones among them cannot even be opened. If there are any, counts of rows mean nothing:
    the scope `is_partial`. The same holds if files have `moved` meanwhile. Files that are
    `misdescribed` have rows that can be read, and a footer that is not true about them.
    """

    out: OutFolder
    scratch: Path
    versions: Mapping[str, str]
    findings: Findings = field(default_factory=Findings)
    unread: dict[OutPath, str] = field(default_factory=dict)
    damaged: list[OutPath] = field(default_factory=list)
    misdescribed: set[OutPath] = field(default_factory=set)
    moved: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether rows of the table could not be read."""
        return bool(self.unread)

    def has_changed(self, path: OutPath) -> bool:
        """Note and return whether a file is not the one that it was when this began."""
        versions = self.out.storage.versions(self.out.captions, "*.parquet")
        changed = versions.get(path.name) != self.versions.get(path.name)
        self.moved |= changed
        return changed

    def fault(self, kind: Kind, path: OutPath, what: str, remedy: str) -> None:
        """Add a finding that is a fault."""
        self.findings.add(kind, self.name_of(path), what, remedy)

    def harmless(self, kind: Kind, path: OutPath, what: str, remedy: str) -> None:
        """Add a finding that is none."""
        self.findings.add(kind, self.name_of(path), what, remedy, is_harmless=True)

    def name_of(self, path: OutPath) -> str:
        """Return a file's path below OUT; that of the index of a store may lie elsewhere."""
        is_below = path.parts[: len(self.out.root.parts)] == self.out.root.parts
        return self.out.name_of(path) if is_below else str(path)

    @contextmanager
    def reading(self, kind: Kind, path: OutPath, remedy: str) -> Iterator[None]:
        """Turn an error of reading a file into a finding."""
        try:
            yield
        except StoreError:
            raise
        except READ_ERRORS as error:
            self.fault(kind, path, f"cannot be read ({error})", remedy)


def how_to_set_aside(scope: Scope, path: OutPath) -> str:
    """Say how to take a file, in which some rows may be whole, out of the table."""
    out = scope.out
    then = "the next run captions its images again"
    if not out.storage.local_path(path):
        return f"move it to {out.damaged}, and {then}"
    folder, file = shlex.quote(str(out.damaged)), shlex.quote(str(path))
    return f"`mkdir -p {folder} && mv -n {file} {folder}/` sets it aside, and {then}"


@dataclass(frozen=True)
class Sampled:
    """The images of a sample, by what captioning them again showed.

    `same` and `different` images have the bytes of their rows. The bytes of `changed` ones are
    others now; `unavailable` ones could not be fetched, or exceed the limits of the last run;
    images in `not_captioned` have the bytes of their rows, but a captioner that could not be
    loaded, named with the reason in `captioners`.
    """

    images: int = 0
    same: int = 0
    different: int = 0
    changed: int = 0
    unavailable: int = 0
    not_captioned: int = 0
    captioners: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    If a run was `at_work`, only files and their rows were verified. `faults` and `harmless` have
    the first findings of each kind, `counts` and `harmless_counts` the numbers of all.
    """

    table: str
    files: int
    rows: int
    at_work: str | None
    counts: Mapping[str, int]
    faults: Sequence[Finding]
    harmless_counts: Mapping[str, int]
    harmless: Sequence[Finding]
    sample: Sampled | None = None
    repaired: Sequence[str] = ()

    @property
    def is_right(self) -> bool:
        """Whether there is no fault."""
        return not self.counts
