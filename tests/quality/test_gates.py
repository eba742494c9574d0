"""Limits on the quality of a run, and on its change from a former one."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from captioner.jobs import JobConfig
from captioner.jobs.config.gates import check_gates
from captioner.jobs.errors import UsageError
from captioner.jobs.quality.gates import gate_advice, gate_text, judge, not_judged
from captioner.schemas.job_report import JobReport, Quality

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = JobReport("r0", "photos", "out/captions", NOW, NOW, 0)


def quality(**values: Any) -> Quality:
    usual = {"images": 200, "captions": 190, "unique": 0.8, "top_caption": 0.02}
    others = {"most_frequent": "A dog.", "confidence": 0.4, "low_confidence": 0.1}
    return {**usual, **others, "failed": {"timeout": 0.05}, **values}  # type: ignore[typeddict-item]


def exceeded(gates: dict[str, Any], now: Quality, then: Quality | None = None) -> dict[str, float]:
    former = replace(REPORT, quality=then) if then else None
    judged = judge(gates, now, former)
    return {gate["gate"]: gate["exceeded_by"] for gate in judged if gate["exceeded_by"]}


@pytest.mark.parametrize(
    ("gates", "excess"),
    [
        ({"min_unique": 0.8}, {}),
        ({"min_unique": 0.9}, {"min_unique": 0.1}),
        ({"max_top_caption": 0.01}, {"max_top_caption": 0.01}),
        ({"min_confidence": 0.45}, {"min_confidence": 0.05}),
        ({"max_low_confidence": 0.05}, {"max_low_confidence": 0.05}),
        ({"max_failed": 0.02}, {"max_failed.timeout": 0.03}),
        ({"max_failed": {"timeout": 0.04, "denied": 0.0}}, {"max_failed.timeout": 0.01}),
        ({"max_failed": {"denied": 0.0}}, {}),
    ],
)
def test_an_absolute_limit_says_by_how_much_it_is_exceeded(
    gates: dict[str, Any], excess: dict[str, float]
) -> None:
    assert exceeded(gates, quality()) == pytest.approx(excess)


@pytest.mark.parametrize(
    ("gates", "then", "excess"),
    [
        ({"max_unique_drop": 0.1}, {"unique": 0.85}, {}),
        ({"max_unique_drop": 0.1}, {"unique": 0.95}, {"max_unique_drop": 0.05}),
        ({"max_unique_drop": 0.1}, {"unique": 0.1}, {}),  # it rose
        ({"max_top_caption_rise": 0.0}, {"top_caption": 0.01}, {"max_top_caption_rise": 0.01}),
        ({"max_confidence_drop": 0.05}, {"confidence": 0.5}, {"max_confidence_drop": 0.05}),
        ({"max_confidence_drop": 0.05}, {"confidence": None}, {}),
        ({"max_low_confidence_rise": 0.05}, {"low_confidence": 0.0},
         {"max_low_confidence_rise": 0.05}),
        ({"max_failed_rise": 0.01}, {"failed": {}}, {"max_failed_rise.timeout": 0.04}),
    ],
)  # fmt: skip
def test_a_relative_limit_compares_with_the_former_run(
    gates: dict[str, Any], then: dict[str, Any], excess: dict[str, float]
) -> None:
    assert exceeded(gates, quality(), quality(**then)) == pytest.approx(excess)
    assert exceeded(gates, quality()) == {}


def test_a_small_run_is_not_judged() -> None:
    small = quality(images=99, unique=0.1)
    assert judge({"min_unique": 0.9}, small, None) == []
    assert len(judge({"min_unique": 0.9, "min_images": 99}, small, None)) == 1


def test_the_second_pass_has_no_limits_but_keeps_the_measure_of_the_first() -> None:
    second = {"checkpoint": "flickr8k", "redo_below": 0.2}
    job = JobConfig("photos", "out", gates={"min_images": 5, "max_failed": 0.1}, second=second)
    again = job.second_job()
    assert again is not None and again.gates == {"min_images": 5}


def test_the_text_of_a_gate_has_all_numbers() -> None:
    (gate,) = judge({"max_confidence_drop": 0.05}, quality(confidence=0.25),
                    replace(REPORT, quality=quality()))  # fmt: skip
    assert gate_text(gate, REPORT) == (
        "the mean confidence fell from 0.4 to 0.25 since run r0 "
        "(max_confidence_drop = 0.05, exceeded by 0.1)"
    )
    (gate,) = judge({"max_failed": 0.01}, quality(), None)
    report = replace(REPORT, images=200, statuses={"ok": 190, "timeout": 10})
    assert gate_text(gate, report) == (
        "10 of 200 images (5.0%) have the status timeout "
        "(max_failed.timeout = 0.01, exceeded by 0.04)"
    )
    assert gate_advice(gate, "out") == "`captioner status out --failed` lists the failed images"


def test_a_limit_without_anything_to_compare_says_why() -> None:
    gates = {"min_confidence": 0.1, "max_confidence_drop": 0.05, "max_failed_rise": 0.01}
    nobody = "no former run of at least 100 images that ended with 0"
    assert not_judged(gates, quality(), None) == {
        "max_confidence_drop": nobody,
        "max_failed_rise.timeout": nobody,
    }
    former = replace(REPORT, quality=quality(confidence=None))
    assert not_judged(gates, quality(), former) == {
        "max_confidence_drop": "the mean confidence of run r0 is unknown"
    }
    unknown = not_judged(gates, quality(confidence=None), replace(REPORT, quality=quality()))
    assert set(unknown.values()) == {"the mean confidence of this run is unknown"}
    assert not_judged(gates, quality(images=99), None) == {}


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"min_uniqe": 0.3}, "in the table gates: unknown key 'min_uniqe'; did you mean 'min_uniq"),
        ({"min_unique": 30}, "gates.min_unique must be a number from 0 to 1, not 30"),
        ({"max_failed": {"timeuot": 0.1}}, "in gates.max_failed: unknown key 'timeuot'; did you"),
        ({"max_failed": {"timeout": 2}}, "gates.max_failed must be shares from 0 to 1"),
        ({"min_images": 0}, "gates.min_images must be a whole number above 0"),
        ([], "gates must be a table of limits"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(gates: object, message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_gates(gates)
    assert message in str(error.value)
