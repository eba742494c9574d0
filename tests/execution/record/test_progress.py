"""What the progress of a run says."""

import io
import sys
from collections.abc import Iterator

import pytest

from captioner.jobs.execution.record.progress import Moment, Pace, showing


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def moments(*images: int, seconds: float = 30.0) -> Iterator[Moment]:
    """Moments at even distances."""
    return (Moment(n * seconds, True, count) for n, count in enumerate(images))


def last_text(pace: Pace, moments: Iterator[Moment]) -> str:
    *_, last = (pace.text(moment) for moment in moments)
    return last


def test_the_speed_is_that_of_the_last_minute() -> None:
    text = last_text(Pace(2000), moments(0, 900, 960, 1020, seconds=30))
    assert text == "1,020 of 2,000 images, 2.0 images/s, 08:10 left"


def test_before_the_first_image_there_is_no_speed() -> None:
    assert Pace(5).text(Moment(3.0)) == "0 of 5 images, starting"
    assert Pace(5).text(Moment(3.0, True)) == "0 of 5 images"


def test_images_of_a_task_that_failed_leave_no_negative_speed() -> None:
    assert last_text(Pace(100), moments(64, 32)) == "32 of 100 images"


def test_failures_and_the_limiting_step_of_the_last_minute_are_named() -> None:
    pace = Pace(1000)
    slow = Moment(100.0, True, 500, 0, {"fetch": 90.0, "encode": 5.0}, 30.0)
    later = {"fetch": 90.1, "encode": 50.0}
    assert pace.text(Moment(0.0, True)) == "0 of 1,000 images"
    assert pace.text(slow) == "500 of 1,000 images"
    text = pace.text(Moment(150.0, True, 600, 2, later, 76.0))
    assert text == "600 of 1,000 images, 2.0 images/s, 03:20 left, 2 failed, limit: encode"


def test_what_is_done_needs_no_time() -> None:
    assert last_text(Pace(60), moments(0, 60)) == "60 of 60 images, 2.0 images/s"


@pytest.mark.parametrize(
    ("stderr", "quiet", "shows"),
    [
        (Terminal(), False, "| 7 of 7 images"),
        (Terminal(), True, ""),
        (io.StringIO(), False, ""),  # in less than a minute
    ],
)
def test_a_bar_is_for_terminals(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, quiet: bool, shows: str
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    with showing(lambda: Moment(0.0, True, 7), 7, quiet):
        pass
    assert shows in stderr.getvalue()
    assert bool(stderr.getvalue()) == bool(shows)
