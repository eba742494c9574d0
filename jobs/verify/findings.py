"""What a verification finds: a bounded number of findings of each kind, and their counts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

SHOWN = 20  # findings of a kind that are kept; all are counted


class Kind(StrEnum):
    """What a finding is about."""

    FILE = "file"  # of the table: damaged or foreign
    SCHEMA = "schema"  # columns, types and metadata of a file of the table
    ROW = "row"  # values that a row may not have
    KEY = "key"  # an image with several rows
    RUN = "run"  # the records of a run, against the rows of the table
    EMBEDDING = "embedding"
    REVIEW = "review"
    CALIBRATION = "calibration"
    INDEX = "index"  # and the records of exports
    SAMPLE = "sample"  # images that were captioned again
    LEFT = "left"  # what killed commands, or changed images, have left behind


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


@dataclass(frozen=True)
class Sampled:
    """The images of a sample, by what captioning them again showed.

    `same` and `different` images have the bytes of their rows. The bytes of `changed` ones are
    others now; `unavailable` ones could not be fetched; images in `not_captioned` have the bytes of
    their rows, but a captioner that could not be loaded, named with the reason in `captioners`.
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
