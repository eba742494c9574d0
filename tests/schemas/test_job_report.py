from datetime import UTC, datetime

from captioner.schemas.job_report import JobReport

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)


def report(**values: object) -> JobReport:
    return JobReport("run", "photos", "out/captions", NOW, NOW, 0, **values)  # type: ignore[arg-type]


def test_a_report_survives_json() -> None:
    original = report(statuses={"ok": 3, "denied": 1}, seconds={"fetch": 0.5}, error="x")
    assert JobReport.from_json(original.to_json()) == original


def test_failures_are_all_rows_that_are_not_ok() -> None:
    result = report(statuses={"ok": 3, "denied": 1, "crashed": 2})
    assert (result.captioned, result.failed) == (3, 3)
    assert result.failures == {"denied": 1, "crashed": 2}
