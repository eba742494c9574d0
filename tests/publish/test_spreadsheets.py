"""What a spreadsheet would run as a formula."""

import pytest

from captioner.jobs.publish.spreadsheets import guarded, unguarded
from tests.support.spreadsheets import HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_each_comes_back_as_it_was(text: str) -> None:
    for separator in (",", ";", "\t", "\n"):
        for cell in guarded(text).split(separator):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["", "A dog.", "a - b", "'tis", "a, b; c", "1+1=2"])
def test_a_harmless_text_stays_as_it_is(text: str) -> None:
    assert guarded(text) == text
