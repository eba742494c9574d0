"""The optimization of one stage: AdamW and its schedule; and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import AveragedModel

from captioner.lstm.model import CaptionModel
from captioner.training.processes import average


class Optimization:
    """AdamW with clipped gradients and scheduled learning rates; a rate of 0 skips the encoder."""

    def __init__(
        self,
        model: CaptionModel,
        learning_rate: float,
        encoder_learning_rate: float,
        weight_decay: float,
        steps: int,
    ) -> None:
        groups: list[dict[str, Any]] = [{"params": model.decoder.parameters(), "lr": learning_rate}]
        if encoder_learning_rate:
            groups.append({"params": model.encoder.parameters(), "lr": encoder_learning_rate})
        self._model = model
        self._optimizer = AdamW(groups, betas=(0.9, 0.98), weight_decay=weight_decay)
        self._schedule = _schedule(self._optimizer, steps)

    def step(self, loss: Tensor) -> float:
        """Update the model by the gradients of a loss, over all processes; return the loss.

        Raises FloatingPointError, before any change, if the loss or a gradient is not finite.
        """
        self._model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        gradients = [each.grad for each in self._model.parameters() if each.grad is not None]
        average([loss, *gradients])
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        values: list[float] = torch.stack([loss, norm]).tolist()  # one wait for a GPU
        for what, value in zip(("loss", "gradient"), values, strict=True):
            if not math.isfinite(value):
                raise FloatingPointError(f"the {what} is {value}")
        self._optimizer.step()
        self._schedule.step()
        return values[0]

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])


def _schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Warm up over the first twentieth of the steps, then decay to zero along a cosine."""
    warm = max(1, steps // 20)
    rise = LinearLR(optimizer, 0.05, total_iters=warm)
    fall = CosineAnnealingLR(optimizer, max(1, steps - warm))
    return SequentialLR(optimizer, [rise, fall], [warm])


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average, short at first so that it forgets the random start."""

    def update(averaged: Any, current: Any, updates: Any) -> None:
        n = int(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update)
