"""What makes training and evaluation cheap where their results do not matter."""

import pytest

from captioner.training import fit_presence


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no Java: it scores with the simple tokenizer, and without METEOR."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def rough_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training fit word presence in a few steps, which takes seconds by default."""
    monkeypatch.setattr(fit_presence, "MIN_STEPS", 10)
