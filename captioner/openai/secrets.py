"""The secrets of a client, and how they are hidden in what a server repeats."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

HIDDEN = b"***"
SHORTEST_SECRET = 8  # characters; keys of servers that need none are words such as "none"


class Secrets:
    """A key, a user's password and the values of an address's query, in all forms that are sent."""

    def __init__(self, key: str, user: str, password: str, values: Iterable[str]) -> None:
        forms = {*_forms([key, password, *values])}
        if password:  # as the header Authorization has it
            forms.add(base64.b64encode(f"{user}:{password}".encode()).decode().rstrip("="))
        longest_first = sorted(forms, key=len, reverse=True)
        pattern = "|".join(map(_escaped, longest_first)) or "(?!)"
        self._pattern = re.compile(pattern.encode(), re.IGNORECASE)

    def hidden_in(self, body: bytes) -> bytes:
        """Return a body without the secrets, even those that JSON has escaped."""
        plain = _unescaped(body)
        if plain is not None and self._pattern.search(plain):
            body = plain
        return self._pattern.sub(HIDDEN, body)


def _forms(secrets: Iterable[str]) -> Iterator[str]:
    """Yield those that are long enough, also as they are in a URL."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            yield from (secret, quote(secret, safe=""), quote_plus(secret))


def _escaped(secret: str) -> str:
    """Return a pattern for a secret, with any backslashes before what JSON may escape."""
    return "".join(("\\\\*" if c in '/"\\' else "") + re.escape(c) for c in secret)


def _unescaped(body: bytes) -> bytes | None:
    """Return JSON without needless escapes; None if a body is no JSON, or has no escapes."""
    if b"\\" not in body:
        return None
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return None
