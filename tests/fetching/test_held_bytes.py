"""Which images go on when too many bytes are in memory, by a clock that the test sets."""

from types import SimpleNamespace

import pytest

from captioner.jobs.fetching import held_bytes
from captioner.jobs.fetching.held_bytes import MOST_BYTES, TURN_BYTES, TURN_SECONDS, HeldBytes


def test_a_slow_image_does_not_hold_up_the_others_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(held_bytes, "time", SimpleNamespace(monotonic=lambda: now[0]))
    held = HeldBytes()
    assert held.allow(0, MOST_BYTES - 1) and not held.has_room
    assert held.allow(1, 1)
    assert not held.allow(2, 1)
    now[0] += TURN_SECONDS + 1
    assert held.allow(1, TURN_BYTES + 1)  # quick enough
    assert not held.allow(2, 1)
    now[0] += TURN_SECONDS + 1
    assert held.allow(2, 1)
    assert not held.allow(1, TURN_BYTES + 1)
    held.forget(0)
    assert held.allow(1, TURN_BYTES + 1) and held.has_room
