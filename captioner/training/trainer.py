"""The training loop of all stages, its progress, and how it resumes."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from captioner.checkpoint import load_checkpoint, save_checkpoint
from captioner.device import choose_device, mixed_precision, prepare_training
from captioner.errors import CaptionerError
from captioner.model import CaptionModel
from captioner.search_options import SearchOptions
from captioner.training.config import TrainConfig
from captioner.training.distill import SoftTargets
from captioner.training.evaluate import caption_features
from captioner.training.fit_presence import fit_to_images
from captioner.training.inputs import (
    References,
    augment,
    cached_features,
    encode,
    shuffled_batches,
)
from captioner.training.metrics import cider
from captioner.training.objectives import Objective
from captioner.vocabulary import Vocabulary

STATE = "training_state.pt"
LOG = "training_log.jsonl"


@dataclass(frozen=True)
class TrainingData:
    """Pixels are uint8 [N, S, S, 3]; references and captions are in the same order."""

    vocabulary: Vocabulary
    references: References
    soft_targets: SoftTargets | None
    pixels: npt.NDArray[np.uint8]
    val_captions: list[tuple[str, ...]]
    val_pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stage:
    """One part of a training; without an encoder learning rate the encoder stays as it is."""

    name: str
    epochs: int
    objective: Objective
    learning_rate: float
    encoder_learning_rate: float = 0.0
    sampling: bool = False  # whether the model says captions of its own, with word presence

    @property
    def frozen(self) -> bool:
        return self.encoder_learning_rate == 0


@dataclass
class Progress:
    """Where a training stands; saved after each epoch."""

    stage: int = 0
    epoch: int = 0  # complete ones of this stage
    best: float = -1.0  # CIDEr is never below 0: the first epoch is saved, however bad
    since_best: int = 0


class Trainer:
    """The model, its moving average, and the progress."""

    def __init__(self, config: TrainConfig, data: TrainingData, model: CaptionModel) -> None:
        self.config = config
        self.data = data
        self.out = Path(config.out)
        self.device = choose_device(config.device)
        self.model = model.to(self.device)
        prepare_training(self.model, self.device)
        update = _moving_average(config.ema_decay)
        self.averaging = AveragedModel(self.model, multi_avg_fn=update)
        self.progress = Progress()
        self.optimizer_state: dict[str, Any] | None = None

    @property
    def average(self) -> CaptionModel:
        """The model that is evaluated and kept."""
        return cast(CaptionModel, self.averaging.module)

    def keep_start(self) -> None:
        """Save the model as it is, for a training without any epoch."""
        save_checkpoint(self.out, self.average, self.data.vocabulary)

    def run(self, index: int, stage: Stage) -> None:
        """Train one stage, from its first epoch that is not done."""
        if index < self.progress.stage:
            return
        if index > self.progress.stage:
            self.progress = Progress(stage=index, best=self.progress.best)
            self.optimizer_state = None
        if not stage.epochs:
            return
        if stage.sampling and not self.progress.epoch:
            self._begin_from_best(stage)
        pixels = self.data.pixels
        inputs = self._cached_features(pixels) if stage.frozen else pixels
        optimizer, schedule = self._optimizer(stage, len(inputs))
        while self._goes_on(stage):
            loss = self._epoch(inputs, stage.objective, optimizer, schedule)
            self.progress.epoch += 1
            self._judge(stage, loss)
            self.optimizer_state = {
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            self._save_state()

    def _goes_on(self, stage: Stage) -> bool:
        patient = self.progress.since_best <= self.config.patience
        return self.progress.epoch < stage.epochs and patient

    def _optimizer(self, stage: Stage, images: int) -> tuple[Optimizer, LRScheduler]:
        """AdamW and its schedule over all steps of the stage, where they were if it resumes."""
        decoder, encoder = self.model.decoder.parameters(), self.model.encoder.parameters()
        groups: list[dict[str, Any]] = [{"params": decoder, "lr": stage.learning_rate}]
        if not stage.frozen:
            groups.append({"params": encoder, "lr": stage.encoder_learning_rate})
        optimizer = AdamW(groups, betas=(0.9, 0.98), weight_decay=self.config.weight_decay)
        schedule = _schedule(optimizer, stage.epochs * (images // self.config.batch_size))
        if self.optimizer_state:
            optimizer.load_state_dict(self.optimizer_state["optimizer"])
            schedule.load_state_dict(self.optimizer_state["schedule"])
        return optimizer, schedule

    def _epoch(
        self,
        inputs: npt.NDArray[Any],
        objective: Objective,
        optimizer: Optimizer,
        schedule: LRScheduler,
    ) -> float:
        """One pass over the training images; returns the mean loss in nats a word.

        Raises CaptionerError if the training has diverged.
        """
        self.model.train()
        self.model.encoder.eval()  # BatchNorm keeps the statistics it was published with
        seed = self.config.seed + 1000 * self.progress.stage + self.progress.epoch
        torch.manual_seed(seed)  # a resumed training goes on as it would have
        batches = list(shuffled_batches(len(inputs), self.config.batch_size))
        total = 0.0
        epoch = f"epoch {self.progress.epoch + 1}"
        with tqdm(batches, desc=epoch, unit="step", disable=None) as bar:
            for batch in bar:
                with mixed_precision(self.device):
                    grid = self._grid(torch.from_numpy(inputs[batch]), batch)
                    loss = objective(self.model.decoder, grid, batch)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                self.averaging.update_parameters(self.model)
                total += loss.item()
                bar.set_postfix(loss=f"{loss.item():.2f}")
        if not math.isfinite(total):
            raise CaptionerError(
                f"the loss is {total} in {epoch}: choose smaller learning rates, "
                "and another output folder"
            )
        return total / max(1, len(batches))

    def _grid(self, inputs: Tensor, images: list[int]) -> Tensor:
        """Grid features of cached ones [N, L, C], or of pixels [N, S, S, 3]."""
        if inputs.is_floating_point():
            return inputs.to(self.device).float()
        mirrorable = [self.data.references.mirrorable[image] for image in images]
        return self.model.encoder(augment(inputs, mirrorable).to(self.device))

    def _judge(self, stage: Stage, loss: float) -> None:
        """Log the epoch, and save the model if it is the best."""
        score = self._score(stage)
        self._log({"stage": stage.name, "epoch": self.progress.epoch, "loss": loss, "cider": score})
        if score > self.progress.best:
            self.progress.best, self.progress.since_best = score, 0
            save_checkpoint(self.out, self.average, self.data.vocabulary)
        else:
            self.progress.since_best += 1

    def _score(self, stage: Stage) -> float:
        """The CIDEr of the captions of the validation images."""
        model = self.average.eval()
        pixels = self.data.val_pixels
        if stage.frozen:
            features = self._cached_features(pixels)
        else:
            features = encode(pixels, model.encoder, self.device)
        captions = caption_features(
            model, self.data.vocabulary, features, SearchOptions(), self.device
        )
        return float(cider(captions, self.data.val_captions).mean())

    def _begin_from_best(self, stage: Stage) -> None:
        """Go on from the best model so far, with word presence, and judge it by what it says so."""
        if self.progress.best >= 0:
            best = load_checkpoint(self.out).model.to(self.device)
            self.model.load_state_dict(best.state_dict())
        fit_to_images(self.model, self.data.pixels, self.data.references, self.device)
        self.average.load_state_dict(self.model.state_dict())
        self.progress.best = self._score(stage)
        save_checkpoint(self.out, self.average, self.data.vocabulary)

    def _log(self, entry: dict[str, Any]) -> None:
        values = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in entry.values())
        tqdm.write("  ".join(f"{k} {v}" for k, v in zip(entry, values, strict=True)))
        with (self.out / LOG).open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def _cached_features(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        return cached_features(pixels, self.model.encoder, self.config.cache, self.device)

    def _save_state(self) -> None:
        state = {
            "progress": asdict(self.progress),
            "settings": self.config.settings(self.progress.stage),
            "words": self.data.vocabulary.words,
            "model": self.model.state_dict(),
            "averaging": self.averaging.state_dict(),
            "optimizer": self.optimizer_state,
        }
        partial = self.out / f"{STATE}.partial"
        torch.save(state, partial)
        partial.replace(self.out / STATE)

    def resume(self) -> bool:
        """Go on after the last complete epoch of an earlier training into the same folder.

        Returns whether there was one.
        Raises CaptionerError if that was a training of another model, or with other settings.
        """
        path = self.out / STATE
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        try:
            if state["words"] != self.data.vocabulary.words:
                raise ValueError("other words")
            self.model.load_state_dict(state["model"])
            self.averaging.load_state_dict(state["averaging"])
        except (RuntimeError, ValueError) as error:
            raise CaptionerError(
                f"{path}: an earlier training of another model or vocabulary; "
                "choose another output folder, or remove this one"
            ) from error
        self.progress = Progress(**state["progress"])
        self.optimizer_state = state["optimizer"]
        self._require_settings(state.get("settings", {}))
        return True

    def _require_settings(self, earlier: dict[str, Any]) -> None:
        now = self.config.settings(self.progress.stage)
        changed = [
            f"{name} {value!r}" for name, value in earlier.items() if now.get(name, value) != value
        ]
        if changed:
            raise CaptionerError(
                f"{self.out / STATE}: an earlier training with {', '.join(changed)}; "
                "give the same to go on with it, or choose another output folder"
            )


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average that forgets the random start: short at first, then longer."""

    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        n = int(updates)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Warm up over the first twentieth of the steps, then fall to zero along a cosine."""
    warm = max(1, steps // 20)
    rise = LinearLR(optimizer, 0.05, total_iters=warm)
    fall = CosineAnnealingLR(optimizer, max(1, steps - warm))
    return SequentialLR(optimizer, [rise, fall], [warm])
