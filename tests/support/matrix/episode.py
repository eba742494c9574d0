"""An episode: runs into one OUT with faults, then without, and what must hold after each."""

import os
import subprocess
import time

from tests.support.matrix.between import Silent, damage_a_file, kill_compaction, kill_marking
from tests.support.matrix.kinds import Kind, kinds_of, restore
from tests.support.matrix.oracle import (
    HALF,
    LOST,
    WRONG,
    Oracle,
    files_of,
    half_written_records,
    leftovers,
    lost_decisions,
    traceback_in,
)
from tests.support.matrix.others import WrongEnd
from tests.support.matrix.scene import HANG_SECONDS, Scene
from tests.support.matrix.tally import Tally

RUNS, LAST_RUNS = 3, 4  # with faults, without them
INJECTIONS = 12  # in a run
STARTING = 0.3  # the share of runs that are hit while they start
FIRST_SECONDS, PAUSE_SECONDS = 15.0, 2.0  # until a fault, at most
BETWEEN = 0.6  # the share of pauses between runs in which something happens


class Episode:
    """The play of one scene."""

    def __init__(self, scene: Scene, oracle: Oracle, tally: Tally) -> None:
        self.scene, self.oracle, self.tally = scene, oracle, tally
        self.dice = scene.dice
        self.kinds = [kind for kind in kinds_of(scene) if tally.is_chosen(kind.name)]
        self.statuses: set[str] = set()  # that faults may have caused
        self.all_faults: list[str] = []

    def play(self) -> None:
        """Play it; what hangs ends it, as a finding."""
        try:
            for _ in range(RUNS):
                self._disturbed_run()
                self._something_between()
            self._last_runs()
        except subprocess.TimeoutExpired:
            time.sleep(5)  # for faulthandler
            self._find("hang", self._log())
        self.scene.left()

    def _disturbed_run(self) -> None:
        self._revive()
        self.scene.faults = []
        hit = list[Kind]()
        self.scene.process = self.scene.start(*self.scene.run_line())
        log = self.scene.log
        self._wait_for_first_moment()
        injections = INJECTIONS if self.kinds else 0
        while self.scene.is_at_work and len(hit) < injections and not self.tally.is_full:
            if kind := self._inject():
                hit.append(kind)
            self._revive()
            self._wait(PAUSE_SECONDS)
        code = self.scene.end_of(self.scene.process)
        self._judge_end(code, hit, log)
        self._judge(code)

    def _revive(self) -> None:
        if self.scene.cluster:
            self.scene.cluster.revive()

    def _wait_for_first_moment(self) -> None:
        """Wait until a moment of the start, or until rows are committed, where more can fail."""
        if self.dice.random() < STARTING:
            self._wait(FIRST_SECONDS)
            return
        before, end = self._parts(), time.monotonic() + HANG_SECONDS
        while self.scene.is_at_work and self._parts() == before and time.monotonic() < end:
            time.sleep(0.2)
        self._wait(PAUSE_SECONDS)

    def _parts(self) -> list[str]:
        return files_of(self.scene, "captions/*")

    def _wait(self, seconds: float) -> None:
        assert self.scene.process
        try:
            self.scene.process.wait(self.dice.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            return

    def _inject(self) -> Kind | None:
        """Inject a fault; rare kinds are likelier. Return its kind, or None if it was too late."""
        weights = [1 / (1 + self.tally.injections[kind.name]) for kind in self.kinds]
        (kind,) = self.dice.choices(self.kinds, weights)
        self.scene.faults.append(kind.name)
        self.all_faults.append(kind.name)
        try:
            if not kind.deliver(self.scene):
                return None
        except WrongEnd as error:
            self._find("exit code", str(error))
        self.statuses.update(kind.statuses)
        self.tally.inject(kind.name)
        return kind

    def _judge_end(self, code: int, hit: list[Kind], log: object) -> None:
        self.tally.end([kind.name for kind in hit], code)
        if code not in {0, 75, *(code for kind in hit for code in kind.codes)}:
            self._find("exit code", f"{code}: {self._log()}")
        self._look_for_traces()

    def _look_for_traces(self) -> None:
        for number in range(self.scene.logs + 1):
            path = self.scene.folder / f"log {number:03d}.txt"
            if path.exists() and (said := traceback_in(path)):
                self._find("traceback", f"{path}: {said}")
                path.rename(path.with_suffix(".seen"))

    def _judge(self, code: int, *, is_last: bool = False) -> None:
        for line in self.scene.left():
            self._find("process left", line)
        if not self.scene.files.exists(f"{self.scene.out.removeprefix('s3://')}/captions"):
            return
        verdict = self.oracle.judge(self.scene, self.statuses, is_complete=is_last)
        self.tally.failed.update(verdict.failed)
        for kind, number in verdict.counts.items():
            examples = [each for each in verdict.examples if each.startswith(kind)]
            self._find(kind, "\n    ".join(examples[:3]), number)
        if (
            missing := self.oracle.missing(self.scene)
            if code == 0 and self._must_be_whole()
            else ()
        ):
            self._find(LOST, f"{sorted(missing)[:9]} {self._log()}", len(missing))
        for path in half_written_records(self.scene):
            self._find(HALF, path)

    def _must_be_whole(self) -> bool:
        return "images vanish" not in self.scene.faults

    def _something_between(self) -> None:
        if self.dice.random() > BETWEEN or self.tally.is_full:
            return
        deeds = [kill_compaction, kill_marking]
        if "://" not in self.scene.out and not self.scene.cluster:
            deeds += 2 * [damage_a_file]
        deed = self.dice.choice(deeds)
        if not self.tally.is_chosen("table file" if deed is damage_a_file else "SIGKILL"):
            return
        self.scene.faults = [deed.__name__]
        try:
            if name := deed(self.scene):
                self.tally.inject(name)
        except Silent as error:
            self._find(WRONG, f"nobody noticed: {error}")
        self._look_for_traces()

    def _last_runs(self) -> None:
        """Run until all is done, without faults; then everything must be as if none had been."""
        restore(self.scene)
        self.scene.variables = {**self.scene.variables, "FAULTS_SLOW_SECONDS": "0"}
        self.scene.faults = []
        codes = list[int]()
        while 0 not in codes and len(codes) < LAST_RUNS:
            self._revive()
            self._age_temporary_folders()
            codes.append(self.scene.command(*self.scene.run_line("--retry-failed")))
        if codes[-1] != 0:
            self._find("no end", f"exit codes {codes}: {self._log()}")
        self.statuses = set()
        self._judge(codes[-1], is_last=True)
        self._look_for_traces()
        for path in (*leftovers(self.scene), *lost_decisions(self.scene)):
            self._find("left", path)
        if code := self.scene.command("verify", self.scene.out):
            self._find("verify", f"{code}: {self._log()}")

    def _age_temporary_folders(self) -> None:
        """Let them look as old as commands require before they remove those of the dead."""
        for folder in self.scene.temporary.iterdir():
            os.utime(folder, (0, 0))

    def _log(self) -> str:
        log = self.scene.log
        return f"{log}: {log.read_text(errors='replace')[-3000:]}"

    def _find(self, kind: str, where: str, count: int = 1) -> None:
        faults = self.scene.faults or [f"({each})" for each in self.all_faults]
        self.tally.find(kind, f"{self.scene.name} {self.scene.folder.name}: {where}", faults, count)
