"""Hosts of which nothing is known, and a clock for them."""

from collections.abc import Iterator

import pytest

from captioner.jobs.storage.attempts import hosts, pace, retry
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Yield the clock by which attempts are timed."""
    clock = Clock()
    for module in (hosts, pace, retry):
        monkeypatch.setattr(module, "time", clock)
    hosts.forget_hosts()
    yield clock
    hosts.forget_hosts()
