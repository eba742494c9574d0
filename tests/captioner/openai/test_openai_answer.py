"""What comes back from a server is input, not trust."""

import json
from typing import Any

import pytest

from captioner.caption import Caption
from captioner.errors import RejectedCaption
from captioner.openai.answer import answer_of, usage_of
from captioner.openai.client import Reply


def reply(text: object = "A dog.", usage: object = None, **choice: Any) -> Reply:
    """A reply with one choice."""
    values = {"message": {"role": "assistant", "content": text}, **choice}
    return Reply(200, json.dumps({"choices": [values], "usage": usage}).encode())


def log_probs(*values: object) -> dict[str, Any]:
    return {"content": [{"token": "x", "logprob": value} for value in values]}


@pytest.mark.parametrize(
    "values", [["x"], [None], [-1, 5], [float("nan")], [float("-inf")], [True], [[]], []]
)
def test_log_probabilities_that_cannot_be_any_are_none(values: list[object]) -> None:
    caption = answer_of(reply(logprobs=log_probs(*values)))
    assert isinstance(caption, Caption)
    assert caption.token_log_probs is caption.log_prob is None


def test_log_probabilities_may_be_rounded_above_zero() -> None:
    caption = answer_of(reply(logprobs=log_probs(0.0001, -2)))
    assert isinstance(caption, Caption)
    assert caption.token_log_probs == (0.0, -2.0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"9" * 100_000,
        b'{"choices": {}}',
        b'{"choices": [1]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "A dog."}]}',
        b'{"choices": [{"message": {"content": ["A dog."]}}]}',
        b'{"choices": [{"message": {"content": "  "}}]}',
    ],
)
def test_what_is_no_answer_is_rejected_and_shown(body: bytes) -> None:
    answer = answer_of(Reply(200, body))
    assert isinstance(answer, RejectedCaption)
    assert str(answer).isprintable()
    assert len(str(answer)) < 340


def test_text_that_no_file_can_hold_is_mended() -> None:
    caption = answer_of(Reply(200, reply("A dog \ud800.").body))
    assert isinstance(caption, Caption)
    assert caption.text == "A dog ?."


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {"prompt_tokens": 5},
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 10**300, "completion_tokens": 1},
    ],
)
def test_a_usage_that_cannot_be_true_is_unknown(usage: object) -> None:
    assert usage_of(reply(usage=usage)) is None


def test_the_usage_is_what_the_server_counted() -> None:
    usage = {"prompt_tokens": 400, "completion_tokens": 12, "total_tokens": 412}
    assert usage_of(reply(usage=usage)) == {"prompt_tokens": 400, "completion_tokens": 12}
    assert usage_of(Reply(500, b"{}")) == {}


def test_a_text_in_parts_or_after_long_thoughts_is_an_answer() -> None:
    parts = [{"type": "text", "text": "A dog "}, {"type": "text", "text": "runs."}]
    for text in (parts, f"<think>{'hm ' * 2000}</think> A dog runs."):
        caption = answer_of(reply(text))
        assert isinstance(caption, Caption)
        assert caption.text == "A dog runs."
    assert isinstance(answer_of(reply([None, {"text": 3}, "x"])), Caption | RejectedCaption)
    assert isinstance(answer_of(reply(["x"])), RejectedCaption)
