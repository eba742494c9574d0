"""What was injected, what became of it, and what is wrong."""

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.support.matrix.oracle import DOUBLED, HALF, LOST, WRONG

ROWS = (LOST, DOUBLED, HALF, WRONG)


class Tally:
    """The injections of all scenes by kind, and findings; its methods are thread-safe."""

    def __init__(self, wanted: int, only: Sequence[str]) -> None:
        self.wanted, self.only = wanted, only
        self.injections = Counter[str]()
        self.codes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.findings = Counter[str]()
        self.hit = Counter[str]()  # kinds of faults with findings
        self.failed = Counter[str]()  # rows that later runs have mended, by status
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        return sum(self.injections.values()) >= self.wanted

    def is_chosen(self, name: str) -> bool:
        return any(part in name for part in self.only)

    def inject(self, name: str) -> None:
        with self._lock:
            self.injections[name] += 1

    def end(self, faults: Sequence[str], code: int) -> None:
        """Note how a run ended that was hit by faults."""
        with self._lock:
            for name in {*faults}:
                self.codes[name][str(code)] += 1

    def find(self, kind: str, where: str, faults: Sequence[str], count: int = 1) -> None:
        """Note and print a finding."""
        with self._lock:
            self.findings[kind] += count
            self.hit.update({*faults})
            print(
                f"{kind} ({count}) after {', '.join(faults) or 'no fault'}\n    {where}", flush=True
            )

    def __str__(self) -> str:
        lines = [f"{'kind of fault':<38} {'injected':>8} {'findings':>8}  exit codes of runs"]
        for name, number in sorted(self.injections.items()):
            codes = ", ".join(f"{code}: {n}" for code, n in sorted(self.codes[name].items()))
            lines.append(f"{name:<38} {number:>8} {self.hit[name]:>8}  {codes}")
        others = sum(self.findings.values()) - sum(
            self.findings[k] for k in (LOST, DOUBLED, HALF, WRONG)
        )
        lines.append(
            f"\nfailed rows that the next run mended: {dict(self.failed)}\n"
            f"{sum(self.injections.values())} injections: "
            f"{self.findings[LOST]} rows lost, {self.findings[DOUBLED]} doubled, "
            f"{self.findings[HALF]} files half-written, "
            f"{self.findings[WRONG]} rows wrong; {others} other findings"
        )
        return "\n".join(lines)
