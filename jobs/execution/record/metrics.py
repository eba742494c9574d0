"""The metrics of a job in a file, as text for Prometheus: node_exporter's textfile collector."""

import errno
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.execution.record.recorder import Recorder
from captioner.jobs.messages import warn

PASSES = ("first", "second")
LAST_SUCCESS = "last_success_timestamp_seconds"
HELP = {  # all are gauges, which begin again with each run
    "run_info": "Run, and captioner once it is known.",
    "run_start_timestamp_seconds": "When the run began.",
    "run_in_progress": "1 while the run is at work, then 0.",
    "images": "Images of the run that have a row now, by status.",
    "images_planned": "Images that the run is to caption.",
    "images_listed": "Images that the run has found in its source.",
    "images_per_second": "Images per second since the first one.",
    "stage_seconds": "Time of each stage, summed over all workers.",
    "tasks": "Tasks by state: committed, failed (then tried again, or split), at work.",
    "workers": "Worker processes, at most.",
    "table_images": "Rows of the whole table, by status.",
    "gate_value": "What a quality gate of the run has measured.",
    "gate_exceeded_by": "By how much a quality gate is exceeded; 0 if it holds.",
    "exit_code": "Exit code of the last run that has ended.",
    LAST_SUCCESS: "When a run last ended with exit code 0; 0 before the first time.",
}
_BEGIN = b"# HELP captioner_"  # of a file
Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]  # name, labels, value


class Metrics:
    """The metrics of a job's runs in one file, which is replaced whole each time."""

    def __init__(self, path: Path, out: str) -> None:
        self.path, self.out = path.resolve(), out
        self._unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        self._check()
        self.recorders: list[Recorder] = []
        before = {name: self._former(name) for name in (LAST_SUCCESS, "exit_code")}
        known = {name: value for name, value in before.items() if value is not None}
        self._ended = {LAST_SUCCESS: 0.0, **known}
        self._has_failed = False

    def _check(self) -> None:
        """Raise UsageError if the file cannot be written."""
        try:
            if self._is_other():
                raise FileExistsError(errno.EEXIST, "something else is there")
            if Path(self.out, "captions").resolve() in self.path.parents:
                raise PermissionError(errno.EPERM, "only files of the table may be there")
            self._unfinished.touch()
            self._unfinished.unlink()
        except OSError as error:
            raise UsageError(
                f"cannot write metrics to {self.path}: {error.strerror}; give --metrics a new file "
                "in a folder that exists and can be written to"
            ) from error

    def _is_other(self) -> bool:
        """Return whether there is anything but a file of metrics, such as a device."""
        if not self.path.is_file():
            return self.path.exists()
        with self.path.open("rb") as file:
            return file.read(len(_BEGIN)) not in (b"", _BEGIN)

    def end(self, code: int) -> None:
        """Record the end of the job."""
        self._ended["exit_code"] = code
        if code == ExitCode.DONE:
            self._ended[LAST_SUCCESS] = round(time.time(), 3)
        self.write()

    def write(self) -> None:
        """Write the file; say it once if that fails, because the run is more important."""
        try:
            self._unfinished.write_text(self._text(), encoding="utf-8")
            self._unfinished.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)
            if not self._has_failed:
                reason = error.strerror or error
                warn(f"the run goes on without metrics: cannot write {self.path}: {reason}")
            self._has_failed = True

    def _text(self) -> str:
        lines: dict[str, list[str]] = {}
        for name, labels, value in self._samples():
            lines.setdefault(name, []).append(f"captioner_{name}{_labels(labels)} {value}")
        return "".join(_family(name, found) for name, found in lines.items())

    def _samples(self) -> Iterator[Sample]:
        for which, recorder in zip(PASSES, self.recorders, strict=False):
            for name, labels, value in _samples_of(recorder):
                yield name, {"out": self.out, "pass": which, **labels}, value
        for name, value in self._ended.items():
            yield name, {"out": self.out}, value

    def _former(self, name: str) -> float | None:
        """Read a value about the same OUT from the file of a former run."""
        with suppress(OSError, ValueError):
            text = self.path.read_text(encoding="utf-8")
            sample = re.escape(f"captioner_{name}{_labels({'out': self.out})} ")
            if found := re.search(rf"^{sample}(\S+)$", text, re.MULTILINE):
                return float(found[1])
        return None


def _samples_of(recorder: Recorder) -> Iterator[Sample]:
    report, moment = recorder.ended, recorder.moment()
    yield "run_info", {"run_id": recorder.run_id, "captioner": recorder.captioner or ""}, 1
    yield "run_start_timestamp_seconds", {}, round(recorder.started_at.timestamp(), 3)
    yield "run_in_progress", {}, int(report is None)
    yield "images_listed", {}, moment.listed
    yield "images_planned", {}, moment.total
    for status, count in sorted(recorder.statuses.items()):
        yield "images", {"status": status}, count
    if seconds := recorder.captioning_seconds:
        yield "images_per_second", {}, round(recorder.images / seconds, 3)
    for stage, value in sorted(moment.seconds.items()):
        yield "stage_seconds", {"stage": stage}, round(value, 3)
    for state, count in recorder.tasks.items():
        yield "tasks", {"state": state}, count
    yield "workers", {}, recorder.workers
    for status, count in sorted((recorder.table_statuses or {}).items()) if report else ():
        yield "table_images", {"status": status}, count
    for gate in recorder.gates:
        yield "gate_value", {"gate": gate["gate"]}, gate["value"]
        yield "gate_exceeded_by", {"gate": gate["gate"]}, gate["exceeded_by"]


def _family(name: str, lines: list[str]) -> str:
    head = f"# HELP captioner_{name} {HELP[name]}\n# TYPE captioner_{name} gauge\n"
    return head + "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    text = value.encode(errors="replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
