from datetime import UTC, datetime

import pytest

from captioner.schemas.job_report import JobReport, limiting_step

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


@pytest.mark.parametrize(
    ("seconds", "took", "step"),
    [
        ({"fetch": 300, "decode": 5, "encode": 10, "search": 20}, 100, "fetch"),
        ({"fetch": 3, "decode": 50, "encode": 10, "search": 20}, 100, "decode"),
        ({"fetch": 300, "decode": 5, "encode": 40, "search": 50}, 100, "search"),
        ({"fetch": 3, "decode": 5, "encode": 40, "search": 20}, 0, "encode"),
        ({"commit": 0.0}, 0, None),
        ({}, 0, None),
    ],
)
def test_the_step_that_the_others_wait_for_is_named(
    seconds: dict[str, float], took: float, step: str | None
) -> None:
    assert limiting_step(seconds, took) == step
