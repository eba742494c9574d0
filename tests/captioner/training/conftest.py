"""What makes training and evaluation cheap where their results do not matter."""

import pytest

from captioner.training import fit_presence
from captioner.training.config import TrainConfig
from tests.support.colours import colour_training


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find no Java: it scores with the simple tokenizer, and without METEOR."""
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def rough_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training fit word presence in a few steps, which takes seconds by default."""
    monkeypatch.setattr(fit_presence, "MIN_STEPS", 10)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return a training that learns to name colours."""
    return colour_training(tmp_path_factory.mktemp("data"))
