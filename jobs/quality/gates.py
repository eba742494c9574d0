"""The quality of a run and the limits of its job -> which of them it exceeds, and by how much."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from captioner.jobs.config.gates import DEFAULT_MIN_IMAGES, MIN_IMAGES
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
        is_change = self.kind in ("drop", "rise")
        value = self._value(now)
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
    if not gates or quality["images"] < gates.get(MIN_IMAGES, DEFAULT_MIN_IMAGES):
        return []
    judged = [limit.judge(quality, former) for limit in _limits(gates, quality)]
    return [gate for gate in judged if gate]


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


def gate_text(gate: JudgedGate) -> str:
    """Say what a gate compared, with which limit, and by how much it is exceeded."""
    name, _, status = gate["gate"].partition(".")
    kind, measured = _parted(name)
    what = WORDS.get(measured, f"the share of images with the status {status}")
    value, limit = f"{gate['value']:.4g}", f"{gate['limit']:.4g}"
    excess = f", exceeded by {gate['exceeded_by']:.4g}" if gate["exceeded_by"] else ""
    if gate["former"] is None:
        return f"{what} is {value} ({gate['gate']} = {limit}{excess})"
    verb = "fell" if kind == "drop" else "rose"
    moved = f"{verb} from {gate['former']:.4g} to {value}"
    return f"{what} {moved} since run {gate['run_id']} ({gate['gate']} = {limit}{excess})"
