"""What becomes of a row when a second captioner has spoken."""

from dataclasses import replace

import pytest

from captioner.jobs.pipeline.former import second_opinion
from captioner.jobs.table.threshold import Threshold, needs_review
from captioner.schemas.caption_table import CaptionRow, Status
from tests.pipeline.test_partition import FakeCaptioner
from tests.support.rows import row

FIRST = row("/a.jpg", confidence=0.2, caption="A dog.")
SECOND = replace(FIRST, captioner="fake@0", caption="A cat.", confidence=None, run_id="later")
REJECTED = replace(SECOND, status=Status.REJECTED, caption=None, error="the answer is HTML")


def opinion(new: CaptionRow, former: CaptionRow = FIRST) -> CaptionRow:
    return second_opinion(new, former, FakeCaptioner())


def test_a_new_caption_keeps_the_former_one() -> None:
    expected = {"caption": "A dog.", "confidence": 0.2, "captioner": FIRST.captioner}
    assert opinion(SECOND) == replace(SECOND, former=expected)


def test_the_first_caption_stays_when_a_captioner_with_other_settings_speaks_again() -> None:
    again = opinion(replace(SECOND, captioner="fake@1"), opinion(SECOND))
    assert again.former == opinion(SECOND).former


@pytest.mark.parametrize("status", ["rejected", "unreadable", "not_found", "denied", "crashed"])
def test_without_a_new_caption_the_row_stays_and_says_who_declined(status: str) -> None:
    declined = {"captioner": "fake@0", "error": "the answer is HTML"}
    assert opinion(replace(REJECTED, status=Status(status))) == replace(FIRST, declined=declined)


@pytest.mark.parametrize("status", ["timeout", "fetch_failed", "out_of_memory"])
def test_what_may_pass_is_tried_again(status: str) -> None:
    assert opinion(replace(REJECTED, status=Status(status))).declined is None


def test_other_bytes_have_no_former_caption() -> None:
    assert opinion(replace(SECOND, image_sha256="other")).former is None
    changed = replace(REJECTED, image_sha256="other", status=Status.UNREADABLE)
    assert opinion(changed) == changed


def test_an_image_that_the_first_captioner_rejected_has_a_second_opinion_too() -> None:
    first = replace(FIRST, status=Status.REJECTED, caption=None, confidence=None)
    former = {"caption": None, "confidence": None, "captioner": FIRST.captioner}
    assert opinion(SECOND, first).former == former
    assert opinion(REJECTED, first).declined


def test_a_caption_of_unknown_confidence_needs_review_where_there_is_a_threshold() -> None:
    assert needs_review(SECOND, Threshold(0.1)) is True
    assert needs_review(SECOND, None) is None
    assert needs_review(REJECTED, Threshold(0.1)) is None
