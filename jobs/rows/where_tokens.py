"""The words and values of `--where`."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from captioner.jobs.errors import UsageError

BOOLEANS = {"TRUE": True, "FALSE": False}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])|(?P<string>'(?:[^']|'')*')"
    r'|(?P<quoted>"(?:[^"]|"")+")|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|<>|!=|==|[=<>(),]))'
)

_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, or a byte that was not UTF-8


@dataclass(frozen=True)
class Token:
    """A word, name, value or sign, and where it begins in the text."""

    kind: str
    text: str
    at: int

    @property
    def keyword(self) -> str:
        return self.text.upper() if self.kind in ("word", "sign") else ""


def tokenise(text: str) -> list[Token]:
    """Return the tokens of a text, then one of kind `end`; UsageError for other characters."""
    if broken := _HALF.search(text):
        raise UsageError(f"--where, at character {broken.start() + 1}: this is not UTF-8")
    tokens, at, text = list[Token](), 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            at = len(text) - len(text[at:].lstrip())
            raise UsageError(f"--where, at character {at + 1}: cannot read {text[at : at + 20]!r}")
        kind = str(found.lastgroup)
        tokens.append(Token(kind, found[kind], found.start(kind)))
        at = found.end()
    return [*tokens, Token("end", "", len(text))]


def literal(token: Token, kind: pa.DataType) -> object:
    """Return the value of a token as a column's type has it; None if it does not fit."""
    if pa.types.is_boolean(kind):
        return BOOLEANS.get(token.keyword)
    if _is_number(kind):
        return _number(token.text) if token.kind == "number" else None
    if token.kind != "string":
        return None
    text = token.text[1:-1].replace("''", "'")
    return _time(text) if pa.types.is_temporal(kind) else text


def _number(text: str) -> int | float:
    is_whole = text.lstrip("+-").isdecimal() and len(text) <= 20  # no more fit into 64 bits
    return int(text) if is_whole else float(text)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def wanted(kind: pa.DataType) -> str:
    """Name the values that a column of a type is compared with."""
    if pa.types.is_boolean(kind):
        return "TRUE or FALSE"
    if _is_number(kind):
        return "a number"
    return "a time such as '2026-01-31T12:00'" if pa.types.is_temporal(kind) else "a 'string'"
