"""The quality of a run and the limits of its job -> which of them it exceeds, and by how much."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from captioner.jobs.config.gates import DEFAULT_MIN_IMAGES, MIN_IMAGES
from captioner.jobs.messages import how_many
from captioner.schemas.job_report import JobReport, JudgedGate, Quality

FAILED = "failed"
WORDS = {  # what is measured
    "unique": "the share of different captions",
    "top_caption": "the share of the most frequent caption",
    "confidence": "the mean confidence",
    "low_confidence": "the share of captions with a very low confidence",
}
_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Limit:
    """A limit: `min` or `max` of what is `measured`, or its `drop` or `rise` since a former run."""

    gate: str
    kind: str
    measured: str
    status: str
    bound: float

    def judge(self, now: Quality, former: JobReport | None) -> JudgedGate | None:
        """Compare; return None if there is nothing to compare."""
        is_change, value = self.is_change, self._value(now)
        then = self._value(former.quality) if former else None
        if value is None or (is_change and then is None):
            return None
        below, above = self.bound - value, value - self.bound
        before = then if is_change else None
        change = value - (before or 0.0)
        over = {"min": below, "max": above, "rise": change - self.bound}
        excess = over.get(self.kind, -change - self.bound)
        return JudgedGate(
            gate=self.gate,
            limit=self.bound,
            value=value,
            former=before,
            run_id=former.run_id if former and is_change else None,
            exceeded_by=round(max(excess, 0.0), 6) if excess > _ROUNDING else 0.0,
        )

    @property
    def is_change(self) -> bool:
        """Whether the limit needs a former run."""
        return self.kind in ("drop", "rise")

    def obstacle(self, now: Quality, former: JobReport | None, least: int) -> str | None:
        """Say why there is nothing to compare; None if there is."""
        if self._value(now) is None:
            return f"{WORDS[self.measured]} of this run is unknown"
        if not self.is_change:
            return None
        if former is None:
            return f"no former run of at least {how_many(least, 'image')} that ended with 0"
        if self._value(former.quality) is None:
            return f"{WORDS[self.measured]} of run {former.run_id} is unknown"
        return None

    def _value(self, quality: Quality | None) -> float | None:
        if quality is None:
            return None
        values: Mapping[str, Any] = {**quality}
        found = values[self.measured]
        return found.get(self.status, 0.0) if self.measured == FAILED else found


def judge(gates: Mapping[str, Any], quality: Quality, former: JobReport | None) -> list[JudgedGate]:
    """Compare the quality of a run with the limits of its job, some of which need a `former` run.

    A run of fewer images than `min_images` is not judged. Limits on a change are passed over
    without a former run, and so is what one of the runs could not measure.
    """
    if quality["images"] < _least(gates):
        return []
    judged = [limit.judge(quality, former) for limit in _limits(gates, quality)]
    return [gate for gate in judged if gate]


def not_judged(
    gates: Mapping[str, Any], quality: Quality, former: JobReport | None
) -> dict[str, str]:
    """Return the limits that `judge` passes over in a run that is judged, and why."""
    least = _least(gates)
    if quality["images"] < least:
        return {}
    limits = _limits(gates, quality)
    found = {limit.gate: limit.obstacle(quality, former, least) for limit in limits}
    return {gate: reason for gate, reason in found.items() if reason}


def _least(gates: Mapping[str, Any]) -> int:
    return int(gates.get(MIN_IMAGES, DEFAULT_MIN_IMAGES))


def _limits(gates: Mapping[str, Any], quality: Quality) -> Iterator[_Limit]:
    for name, bound in gates.items():
        if name == MIN_IMAGES:
            continue
        kind, measured = _parted(name)
        if measured != FAILED:
            yield _Limit(name, kind, measured, "", bound)
            continue
        limits = bound if isinstance(bound, Mapping) else dict.fromkeys(quality["failed"], bound)
        for status, share in limits.items():
            yield _Limit(f"{name}.{status}", kind, measured, status, share)


def _parted(name: str) -> tuple[str, str]:
    """Return the kind of a limit, and what is measured."""
    start, measured = name.split("_", 1)
    for kind in ("drop", "rise"):
        if measured.endswith(f"_{kind}"):
            return kind, measured.removesuffix(f"_{kind}")
    return start, measured


def gate_text(gate: JudgedGate, report: JobReport) -> str:
    """Say what a gate of a run compared, with which limit, and by how much it is exceeded."""
    name, _, status = gate["gate"].partition(".")
    kind, measured = _parted(name)
    value, limit = f"{gate['value']:.4g}", f"{gate['limit']:.4g}"
    excess = f", exceeded by {gate['exceeded_by']:.4g}" if gate["exceeded_by"] else ""
    compared = f"({gate['gate']} = {limit}{excess})"
    what, counts = WORDS.get(measured, f"the share of images with the status {status}"), ""
    if measured == FAILED:
        counts = f"{report.statuses.get(status, 0):,} of {report.images:,} images"
    if gate["former"] is None:
        share = f"{counts} ({gate['value']:.1%}) have the status {status}"
        return f"{share if counts else f'{what} is {value}'} {compared}"
    verb = "fell" if kind == "drop" else "rose"
    moved = f"{verb} from {gate['former']:.4g} to {value}{f' ({counts})' if counts else ''}"
    return f"{what} {moved} since run {gate['run_id']} {compared}"


def gate_advice(gate: JudgedGate, out: str) -> str:
    """Say what to do about a gate that is exceeded; `out` is quoted for a shell."""
    if _parted(gate["gate"].partition(".")[0])[1] == FAILED:
        return f"`captioner status {out} --failed` lists the failed images"
    if gate["run_id"] is None:
        return "look at the captions in report.html of this run"
    return "compare the reports of both runs; to accept this, leave the limit out for one run"
