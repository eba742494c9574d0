"""Secrets are hidden in all forms in which a server may repeat them."""

import base64
import json

import pytest

from captioner.openai.secrets import Secrets

KEY, PASSWORD, VALUE = 'sk/0123"456789', "pa 55/word", "que/ry=value"
HEADER = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    "form",
    [
        *(KEY, PASSWORD, VALUE, HEADER, HEADER.rstrip("=")),
        *("pa+55%2Fword", "pa%2055%2fword", "que%2Fry%3Dvalue", "que%2fry%3dvalue"),
        json.dumps(KEY)[1:-1],
        r"sk\/0123\"456789",
        r"sk\\\/0123\\\"456789",  # JSON in JSON
    ],
)
def test_a_secret_is_hidden_in_text_and_in_json(form: str) -> None:
    secrets = Secrets(KEY, "ann", PASSWORD, [VALUE])
    for text in (f"no: {form}!", json.dumps({"error": f"no: {form}!"})):
        hidden = secrets.hidden_in(text.encode()).decode()
        assert "no: ***" in hidden
        assert not any(part in hidden for part in ("456789", "word", "value", HEADER[:12]))


def test_a_secret_is_hidden_however_json_escapes_it() -> None:
    secrets = Secrets("sk/0123456789", "", "", [])
    escaped = "".join(rf"\u{ord(character):04x}" for character in "sk/0123456789")
    hidden = secrets.hidden_in(b'{"error": "no: %b"}' % escaped.encode())
    assert json.loads(hidden) == {"error": "no: ***"}


def test_what_has_no_secret_is_left_as_it_is() -> None:
    body = rb'{"a": "A \"dog\" \u0041 \/"}'
    assert Secrets(KEY, "ann", PASSWORD, [VALUE]).hidden_in(body) == body
    assert Secrets("none", "", "", ["1"]).hidden_in(b"none 1") == b"none 1"
