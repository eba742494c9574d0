"""What people write, made fit to be saved."""

import pytest

from captioner.jobs.publish.review.texts import Refused, clean_text, verdict
from captioner.schemas.review import Decision


@pytest.mark.parametrize(
    ("written", "saved"),
    [
        ("  A dog \t on\r\n a  beach. ", "A dog on a beach."),
        ("A\x00 dog\x1b[31m.\x7f", "A dog[31m."),
        ("evil\u202egpj.exe\u2066", "evilgpj.exe"),
        ("half a pair \ud83d", "half a pair"),
        ("e\u0301te\u0301", "été"),
        ("e\u202a\u0301te\x00\u0301", "été"),
        ("A \u202e dog \x00\x00 here \ufeff", "A dog here"),
        ("👩\u200d🚒 犬 \u0645\u06cc\u200c\u062e", "👩\u200d🚒 犬 \u0645\u06cc\u200c\u062e"),
    ],
)
def test_a_text_has_single_spaces_and_nothing_unseen(written: str, saved: str) -> None:
    assert clean_text(written) == saved


def test_each_decision_has_its_text() -> None:
    caption = "A dog."
    assert verdict("accepted", "ignored", caption) == (Decision.ACCEPTED, "A dog.")
    assert verdict("edited", " A  cat. ", caption) == (Decision.EDITED, "A cat.")
    assert verdict("edited", "A dog. ", caption) == (Decision.ACCEPTED, "A dog.")
    assert verdict("rejected", "ignored", caption) == (Decision.REJECTED, None)
    assert verdict("decorative", "ignored", caption) == (Decision.DECORATIVE, "")


@pytest.mark.parametrize(
    ("decision", "text", "reason"),
    [
        ("edited", " \u202e\n", "empty.*decorative"),
        ("edited", "x" * 126, "126 characters: at most 125"),
        ("undone", "", "'undone' is no decision"),
        ("yes", "", "accepted, edited, rejected, decorative"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    decision: str, text: str, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        verdict(decision, text, "A dog.")


def test_a_long_caption_can_be_accepted_but_no_other_text_may_be_as_long() -> None:
    caption = "x" * 200
    assert verdict("accepted", "", caption) == (Decision.ACCEPTED, caption)
    assert verdict("edited", caption, caption) == (Decision.ACCEPTED, caption)
    with pytest.raises(Refused, match="at most 125"):
        verdict("edited", "y" * 126, caption)
