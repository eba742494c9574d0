"""Metrics without Java, which takes seconds to start."""

import pytest


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no Java: it scores with the simple tokenizer, and without METEOR."""
    monkeypatch.setenv("PATH", "")
