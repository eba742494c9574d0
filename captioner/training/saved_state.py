"""The state of a training, saved after each epoch, from which it resumes."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from captioner.errors import CaptionerError
from captioner.training.config import TrainConfig

STATE = "training_state.pt"


def save_state(out: Path, state: Mapping[str, Any]) -> None:
    """Write the state of the training in a folder, atomically."""
    partial = out / f"{STATE}.partial"
    torch.save(state, partial)
    partial.replace(out / STATE)


def load_state(
    out: Path, words: Sequence[str], modules: Mapping[str, nn.Module], device: torch.device
) -> dict[str, Any] | None:
    """Load the modules of an earlier training in a folder; return its state, None without one.

    Raises CaptionerError if that training had another model or vocabulary.
    """
    path = out / STATE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    try:
        if state["words"] != words:
            raise ValueError("different words")
        for name, module in modules.items():
            module.load_state_dict(state[name])
    except (RuntimeError, ValueError) as error:
        raise CaptionerError(
            f"{path}: an earlier training of another model or vocabulary; "
            "choose another output folder, or remove this one"
        ) from error
    return state


def require_settings(out: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CaptionerError if the settings of an earlier training have changed.

    One that it lacks did not exist then, and had the effect of its default; one that does not exist
    any more is ignored.
    """
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    former = {name: earlier.get(name, defaults[name]) for name in now}
    changed = [f"{name} {value!r}" for name, value in former.items() if now[name] != value]
    if changed:
        raise CaptionerError(
            f"{out / STATE}: an earlier training with {', '.join(changed)}; "
            "give the same settings to resume it, or choose another output folder"
        )
