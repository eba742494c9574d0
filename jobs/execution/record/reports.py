"""The report of a run, from what its recorder has counted."""

from dataclasses import asdict
from typing import Any

from captioner.jobs.errors import ExitCode
from captioner.jobs.execution.record.recorder import Recorder, rounded
from captioner.schemas.job_report import JobReport


def report_of(recorder: Recorder, code: ExitCode, error: str | None = None) -> JobReport:
    """Return the report of a run that ends now."""
    now = recorder.now
    took = (now - recorder.started_at).total_seconds()
    return JobReport(
        run_id=recorder.run_id,
        source=recorder.source,
        table=str(recorder.writer.out.captions),
        started_at=recorder.started_at,
        finished_at=now,
        exit_code=int(code),
        **asdict(recorder.plan.counts),
        pruned=recorder.pruned,
        skipped=dict(recorder.skipped),
        planned=recorder.plan.images - recorder.left,
        postponed=recorder.plan.postponed + recorder.left,
        stopped=recorder.stopped,
        outages=recorder.outages,
        images=recorder.images,
        statuses=dict(recorder.statuses),
        reused=recorder.reused,
        partitions=recorder.partitions,
        workers=recorder.workers,
        images_per_second=round(recorder.images / took, 2) if recorder.images else None,
        captioning_seconds=recorder.captioning_seconds,
        seconds=rounded(recorder.seconds),
        captioner=recorder.captioner,
        precision=recorder.precision,
        **asdict(recorder.spent),
        **_review(recorder),
        remarked=recorder.remarked,
        first_failures=recorder.examples.failures,
        surest=recorder.examples.surest,
        least_sure=recorder.examples.least_sure,
        table_statuses=recorder.table_statuses,
        **_gates(recorder),
        too_many_failures=recorder.too_many_failures,
        error=error,
    )


def _gates(recorder: Recorder) -> dict[str, Any]:
    judged = {"gates": list(recorder.gates), "gates_not_judged": recorder.gates_not_judged}
    return {"quality": recorder.quality, **judged}


def _review(recorder: Recorder) -> dict[str, Any]:
    if recorder.threshold is None or recorder.threshold.min_confidence is None:
        return {}
    values = asdict(recorder.threshold)
    del values["since"]
    return {**values, "needs_review": recorder.needs_review}
