"""What came back from a server -> a caption, or the reason why it is none. Nothing is trusted."""

import json
import math
from collections.abc import Mapping
from typing import Any

from captioner.caption import Caption
from captioner.errors import RejectedCaption
from captioner.openai.client import Reply

MAX_CHARACTERS = 2000  # of an answer, before anything else looks at it
LEAST_LOG_PROB, ROUNDING = -1e6, 0.01  # believable log-probabilities; rounding may exceed 0
SHOWN = 300  # characters of a reply, in an error
MAX_TOKENS = 10_000_000  # that a server can believably count in one request
OK = 200


class Garbled(RejectedCaption):
    """A reply that is no answer; another one may be."""


def answer_of(reply: Reply) -> Caption | RejectedCaption:
    """Return the caption in a reply, or an error that shows what came back."""
    came_back = shown(reply.body.decode(errors="replace"))
    if reply.status != OK:
        return RejectedCaption(f"status {reply.status}: {came_back}")
    choice = _only_choice(_json(reply.body))
    if choice is None:
        return Garbled(f"not an answer: {came_back or 'nothing'}")
    message, reason = _table(choice.get("message")), choice.get("finish_reason")
    if message.get("refusal") or reason == "content_filter":
        refusal = message.get("refusal") or message.get("content") or reason
        return RejectedCaption(f"refused: {shown(str(refusal))}")
    text = _text(message.get("content"))
    if reason == "length":
        return RejectedCaption(f"cut off, because it is too long: {shown(text)}")
    if not text.strip():
        return Garbled(f"an answer without text: {came_back}")
    log_probs = _log_probs(choice)
    return Caption(
        text=text[:MAX_CHARACTERS].encode(errors="replace").decode().strip(),
        log_prob=None if log_probs is None else math.fsum(log_probs),
        token_log_probs=log_probs,
    )


def status_of(reply: Reply) -> int:
    """Return the status of a reply; some servers write it into the body, and send 200."""
    code = _table(_table(_json(reply.body)).get("error")).get("code")
    if reply.status == OK and isinstance(code, int) and 400 <= code <= 599:
        return code
    return reply.status


def usage_of(reply: Reply) -> Mapping[str, int] | None:
    """Return the tokens that a reply says it used: {} for a refusal, None if it does not say."""
    if reply.status != OK:
        return {}
    usage = _table(_table(_json(reply.body)).get("usage"))
    names = ("prompt_tokens", "completion_tokens")
    tokens = {name: usage[name] for name in names if _is_count(usage.get(name))}
    return tokens if len(tokens) == len(names) else None


def error_of(body: bytes) -> tuple[str, str | None]:
    """Return what a refusal says, and the parameter that it names in its field `param`."""
    parsed = _table(_json(body))
    error = _table(parsed.get("error")) or parsed
    parameter = error.get("param")
    text = body[:MAX_CHARACTERS].decode(errors="replace")
    return text, parameter if isinstance(parameter, str) else None


def shown(text: str) -> str:
    """Return the beginning of a text from outside, printable and on one line."""
    printable = (c if c.isprintable() else " " for c in text[: 4 * SHOWN])
    return " ".join("".join(printable).split())[:SHOWN]


def _json(body: bytes) -> object:
    """Return the value of a JSON text, None if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _only_choice(answer: object) -> dict[str, Any] | None:
    choices = _table(answer).get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    return _table(choices[0]) or None


def _text(content: object) -> str:
    """Return the text of a message, a string or a list of parts, without what came before it."""
    if isinstance(content, list):
        content = "".join(str(_table(part).get("text") or "") for part in content)
    return content.rpartition("</think>")[2] if isinstance(content, str) else ""


def _log_probs(choice: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Return the log-probability of each token, None unless all are known."""
    tokens = _table(choice.get("logprobs")).get("content")
    if not isinstance(tokens, list) or not tokens:
        return None
    values = [_log_prob(_table(token).get("logprob")) for token in tokens]
    known = [value for value in values if value is not None]
    return tuple(known) if len(known) == len(values) else None


def _log_prob(value: object) -> float | None:
    """Return a log-probability that a server told, None if it cannot be one."""
    if not isinstance(value, int | float) or not LEAST_LOG_PROB <= value < ROUNDING:
        return None
    return min(float(value), 0.0)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKENS


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
