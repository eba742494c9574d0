"""The language of `--where`: conditions on columns, as in SQL, parsed and never pasted into SQL.

    confidence >= 0.7 AND status = 'ok' AND (image_uri LIKE '%/cats/%' OR format IN ('PNG', 'GIF'))
    needs_review OR former IS NOT NULL

A condition compares a column with a value (=, <>, !=, <, <=, >, >=, LIKE, IN, BETWEEN, IS NULL), or
is a column of booleans. NOT, AND, OR and brackets combine them. Strings have single quotes, names
with odd characters double ones. As in SQL, a comparison with null is neither true nor false.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.errors import UsageError
from captioner.jobs.rows.where_tokens import BOOLEANS, Token, literal, tokenise, wanted
from captioner.schemas.caption_table import caption_table_schema

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KEYWORDS = {"AND", "OR", "NOT", "LIKE", "IN", "BETWEEN", "IS", "NULL", "TRUE", "FALSE"}
_DEEPEST = 100  # brackets within brackets


@dataclass(frozen=True)
class Where:
    """A parsed condition, for Arrow and for SQL.

    `sql` has a `?` for each of the `parameters`, and names only existing columns, in double quotes.
    It takes times as strings, in the form of Arrow's cast.
    """

    columns: frozenset[str]
    expression: pc.Expression
    sql: str
    parameters: tuple[object, ...]


def parse_where(text: str, schema: pa.Schema) -> Where:
    """Parse a condition on the columns of a schema; UsageError says where it goes wrong."""
    return _Parser(text, schema).parse()


class _Parser:
    """A recursive descent: or_ <- and_ <- not_ <- condition."""

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.schema = schema
        self.tokens = tokenise(text)
        self.at = self.depth = 0

    def parse(self) -> Where:
        where = self._or()
        if self.token.kind != "end":
            raise self._error("expected AND, OR or the end")
        return where

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def _take(self, *keywords: str) -> str:
        """Return the next token's keyword and step over it if it is one of these; otherwise ""."""
        keyword = self.token.keyword
        if keyword not in keywords:
            return ""
        self.at += 1
        return keyword

    def _expect(self, keyword: str) -> None:
        if not self._take(keyword):
            raise self._error(f"expected {keyword}")

    def _error(self, problem: str) -> UsageError:
        found = repr(self.token.text) if self.token.text else "the end"
        return UsageError(f"--where, at character {self.token.at + 1}: {problem}, not {found}")

    def _or(self) -> Where:
        return self._joined("OR", self._and, operator.or_)

    def _and(self) -> Where:
        return self._joined("AND", self._not, operator.and_)

    def _joined(self, word: str, part: Callable[[], Where], join: Callable[..., Any]) -> Where:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return _join(parts, word, join)

    def _not(self) -> Where:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error("too many brackets or NOTs")
        try:
            return _negated(self._not()) if self._take("NOT") else self._condition()
        finally:
            self.depth -= 1

    def _condition(self) -> Where:
        if self._take("("):
            inner = self._or()
            self._expect(")")
            return inner
        column = self._column()
        if pa.types.is_nested(column.type):
            return self._nested(column)
        if sign := self._take(*_COMPARE):
            return self._compared(column, sign, self._value(column))
        negated = bool(self._take("NOT"))
        condition = self._special(column, negated)
        return _negated(condition) if negated else condition

    def _nested(self, column: pa.Field) -> Where:
        if not self._take("IS"):
            raise self._error(f"{column.name} has parts: expected IS NULL or IS NOT NULL")
        return self._null(column, negated=bool(self._take("NOT")))

    def _special(self, column: pa.Field, negated: bool) -> Where:
        """Parse what follows a column and is not a comparison."""
        match self._take("LIKE", "IN", "BETWEEN", "IS"):
            case "LIKE":
                return self._like(column)
            case "IN":
                return _join(self._equals(column), "OR", operator.or_)
            case "BETWEEN":
                return self._between(column)
            case "IS" if not negated:
                return self._is(column)
        if pa.types.is_boolean(column.type) and not negated:
            return self._compared(column, "=", True)
        raise self._error(f"expected a comparison of {column.name}")

    def _equals(self, column: pa.Field) -> list[Where]:
        self._expect("(")
        values = [self._compared(column, "=", self._value(column))]
        while self._take(","):
            values.append(self._compared(column, "=", self._value(column)))
        self._expect(")")
        return values

    def _between(self, column: pa.Field) -> Where:
        low = self._compared(column, ">=", self._value(column))
        self._expect("AND")
        high = self._compared(column, "<=", self._value(column))
        return _join([low, high], "AND", operator.and_)

    def _like(self, column: pa.Field) -> Where:
        pattern = self._value(column)
        if not isinstance(pattern, str):
            raise self._error(f"LIKE needs a column of strings, and {column.name} has others")
        expression = pc.match_like(pc.field(column.name), pattern)
        sql = f"{quoted(column.name)} LIKE ? ESCAPE '\\'"
        return Where(frozenset({column.name}), expression, sql, (pattern,))

    def _is(self, column: pa.Field) -> Where:
        negated = bool(self._take("NOT"))
        if word := self._take("TRUE", "FALSE"):
            if not pa.types.is_boolean(column.type):
                raise self._error(f"{column.name} is neither true nor false")
            is_value = self._compared(column, "=", BOOLEANS[word])
            return _negated(is_value) if negated else is_value
        return self._null(column, negated)

    def _null(self, column: pa.Field, negated: bool) -> Where:
        self._expect("NULL")
        expression, sql = pc.field(column.name).is_null(), f"{quoted(column.name)} IS NULL"
        is_null = Where(frozenset({column.name}), expression, sql, ())
        return _negated(is_null) if negated else is_null

    def _compared(self, column: pa.Field, sign: str, value: object) -> Where:
        field, scalar = self._operands(column, value)
        expression = _COMPARE[sign](field, scalar)
        is_time = pa.types.is_temporal(column.type)
        parameter = (scalar.cast(pa.string()) if is_time else scalar).as_py()
        sql = f"{quoted(column.name)} {sign} ?"
        return Where(frozenset({column.name}), expression, sql, (parameter,))

    def _operands(self, column: pa.Field, value: object) -> tuple[pc.Expression, pa.Scalar]:
        """Return a column and a value of the same type."""
        field = pc.field(column.name)
        if pa.types.is_floating(column.type):  # 0.7 is the number that float32 rounds it to
            return field, pa.scalar(value, pa.float64()).cast(column.type, safe=False)
        in_doubles = field.cast(pa.float64(), safe=False)
        if isinstance(value, float):
            return in_doubles, pa.scalar(value)
        try:
            return field, pa.scalar(value, column.type)
        except (pa.ArrowException, OverflowError) as error:
            if isinstance(value, int):  # too large for the column, or negative
                return in_doubles, pa.scalar(float(value))
            what = f"{column.name}, a column of {column.type},"
            raise UsageError(f"--where: {what} cannot be compared with {value!r}") from error

    def _column(self) -> pa.Field:
        token = self.token
        if token.kind == "quoted":
            name = token.text[1:-1].replace('""', '"')
        elif token.kind == "word" and token.keyword not in _KEYWORDS:
            name = token.text
        else:
            raise self._error("expected the name of a column")
        if name not in self.schema.names:
            if name in caption_table_schema().names:
                raise UsageError(f"--where: {name} works in export and review, but not in a search")
            (nearest,) = get_close_matches(name, self.schema.names, n=1, cutoff=0)
            raise self._error(f"expected the name of a column, such as {nearest}")
        self.at += 1
        return self.schema.field(name)

    def _value(self, column: pa.Field) -> object:
        token = self.token
        value = literal(token, column.type)
        if value is None:
            raise self._error(f"expected {wanted(column.type)} to compare {column.name} with")
        self.at += 1
        return value


def quoted(name: str) -> str:
    """Return a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _negated(where: Where) -> Where:
    return Where(where.columns, ~where.expression, f"NOT ({where.sql})", where.parameters)


def _join(parts: Sequence[Where], word: str, join: Callable[..., Any]) -> Where:
    if len(parts) == 1:
        return parts[0]
    return Where(
        frozenset().union(*(part.columns for part in parts)),
        reduce(join, (part.expression for part in parts)),
        "(" + f" {word} ".join(part.sql for part in parts) + ")",
        tuple(value for part in parts for value in part.parameters),
    )
