"""The training loop: epochs of a stage, their evaluation, and resumption."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from captioner.device import (
    choose_device,
    compute_dtype,
    mixed_precision,
    prepare_training,
    send,
)
from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.model import CaptionModel
from captioner.training import processes
from captioner.training.config import OF_STAGES, TrainConfig
from captioner.training.data.batches import random_batches, read_ahead
from captioner.training.data.tensors import augment, cached_features, encode
from captioner.training.evaluation.evaluate import caption_features
from captioner.training.evaluation.metrics import cider
from captioner.training.fit_presence import fit_to_images
from captioner.training.optimization import Optimization, moving_average
from captioner.training.progress import bar, say
from captioner.training.saved_state import load_state, require_settings, save_state
from captioner.training.stages import Progress, Stage
from captioner.training.training_data import TrainingData

LOG = "training_log.jsonl"


class Trainer:
    """The model in training, its moving average, and the progress."""

    def __init__(self, config: TrainConfig, data: TrainingData, model: CaptionModel) -> None:
        self.config = config
        self.data = data
        self.out = Path(config.out)
        self.device = choose_device(config.device)
        self.model = model.to(self.device)
        prepare_training(self.model, self.device)
        self.averaging = moving_average(self.model, config.ema_decay)
        self.progress = Progress()
        self.optimizer_state: dict[str, Any] | None = None

    @property
    def average(self) -> CaptionModel:
        """The averaged model, which is evaluated and saved."""
        return cast(CaptionModel, self.averaging.module)

    def keep_start(self) -> None:
        """Save the initial model, for a training without epochs."""
        save_checkpoint(self.out, self.average, self.data.vocabulary)

    def run(self, index: int, stage: Stage) -> None:
        """Train one stage from its first incomplete epoch on.

        Raises CaptionerError if it diverges; the best model so far stays.
        """
        if index < self.progress.stage:
            return
        if index > self.progress.stage:
            self.progress = Progress(stage=index, best=self.progress.best)
            self.optimizer_state = None
        if not stage.epochs:
            return
        with self._diverging(stage):
            if stage.sampling and not self.progress.epoch:
                self._begin_from_best(stage)
            self._train(stage)

    def _train(self, stage: Stage) -> None:
        pixels = self.data.pixels
        with processes.first_before_others():
            inputs = self._cached_features(pixels) if stage.frozen else pixels
        optimization = self._optimization(stage, len(inputs))
        if self.progress.epoch < stage.epochs:
            say(f"{self._name(stage)}: training on {len(inputs):,} images")
        while self.progress.epoch < stage.epochs:
            if self.progress.since_best > self.config.patience:
                say(f"{stage.name} ends: {self.progress.since_best} epochs without a better CIDEr")
                return
            begin = time.monotonic()
            self.model.encoder.blind = 0.0 if stage.sampling else self.config.blind
            loss = self._epoch(inputs, stage, optimization)
            self.progress = processes.from_first(
                partial(self._end_epoch, stage, loss, begin, optimization)
            )

    def _end_epoch(
        self, stage: Stage, loss: float, begin: float, optimization: Optimization
    ) -> Progress:
        """Evaluate and save an epoch that began then; return the progress."""
        self._evaluate_epoch(stage, loss, begin)
        self.progress.epoch += 1
        self.optimizer_state = optimization.state_dict()
        self._save_state()
        return self.progress

    def _name(self, stage: Stage) -> str:
        """Return the name of the epoch in progress."""
        return f"{stage.name}, epoch {self.progress.epoch + 1} of {stage.epochs}"

    @contextmanager
    def _diverging(self, stage: Stage) -> Iterator[None]:
        """Turn a FloatingPointError into an error that says when it happened, and what to do."""
        try:
            yield
        except FloatingPointError as error:
            raise CaptionerError(f"{self._name(stage)}: {error}; {self._remedy()}") from error

    def _remedy(self) -> str:
        rates = [name for name in OF_STAGES[self.progress.stage] if name.endswith("rate")]
        ways = [f"choose smaller learning rates ({', '.join(rates)}) and another output folder"]
        if self.progress.best >= 0:
            ways[0] += f", with --start {self.out} to go on from the best model so far"
        if self.config.precision == "auto" and compute_dtype(self.device) != torch.float32:
            ways.append("continue with --precision float32")
        return ", or ".join(ways)

    def _optimization(self, stage: Stage, images: int) -> Optimization:
        """Return the optimization of a stage, in its saved state if the stage resumes."""
        optimization = Optimization(
            self.model,
            stage.learning_rate,
            stage.encoder_learning_rate,
            self.config.weight_decay,
            steps=stage.epochs * (images // self.config.batch_size),
        )
        if self.optimizer_state:
            optimization.load_state_dict(self.optimizer_state)
        return optimization

    def _epoch(self, inputs: npt.NDArray[Any], stage: Stage, optimization: Optimization) -> float:
        """Train on every image once, with the other processes; return the mean loss per word."""
        self.model.train()
        self.model.encoder.eval()  # BatchNorm keeps its published statistics
        seed = self.config.seed + 1000 * self.progress.stage + self.progress.epoch
        torch.manual_seed(seed)  # a resumed training repeats what an uninterrupted one does
        whole = random_batches(len(inputs), self.config.batch_size)
        batches = [batch[processes.rank() :: processes.count()] for batch in whole]
        if not processes.is_first():  # other dropout and augmentation than in the first process
            torch.manual_seed(seed + 1_000_000 * processes.rank())
        total = 0.0
        with bar(read_ahead(inputs, batches), self._name(stage), " steps", len(batches)) as steps:
            for batch, rows in zip(batches, steps, strict=True):
                with mixed_precision(self.device, self.config.precision):
                    grid = self._grid(torch.from_numpy(rows), batch)
                    loss = stage.loss(self.model.decoder, grid, batch)
                nats = optimization.step(loss)
                self.averaging.update_parameters(self.model)
                total += nats
                steps.set_postfix(loss=f"{nats:.2f}", refresh=False)
        return total / max(1, len(batches))

    def _grid(self, inputs: Tensor, images: list[int]) -> Tensor:
        """Return grid features from cached ones [N, L, C], or from pixels [N, S, S, 3]."""
        inputs = send(inputs, self.device)
        if inputs.is_floating_point():
            return inputs.float()
        mirrorable = [self.data.references.mirrorable[image] for image in images]
        return self.model.encoder(augment(inputs, mirrorable))

    def _evaluate_epoch(self, stage: Stage, loss: float, begin: float) -> None:
        """Evaluate and log an epoch that began then; save the model if it is the best so far."""
        score, epoch = self._score(stage), self.progress.epoch + 1
        is_best = score > self.progress.best
        if is_best:
            self.progress.best, self.progress.since_best = score, 0
            save_checkpoint(self.out, self.average, self.data.vocabulary)
        else:
            self.progress.since_best += 1
        self._log({"stage": stage.name, "epoch": epoch, "loss": loss, "cider": score})
        seconds = (stage.epochs - epoch) * (time.monotonic() - begin)
        say(
            f"{self._name(stage)}: loss {loss:.4f}, CIDEr {score:.4f}"
            + is_best * " (the best so far)"
            + f", about {tqdm.format_interval(seconds)} left in this stage" * (seconds > 0)
        )

    def _score(self, stage: Stage) -> float:
        """Return the CIDEr of the averaged model on the validation images."""
        model = self.average.eval()
        pixels = self.data.val_pixels
        say(f"{self._name(stage)}: evaluating on {len(pixels):,} validation images")
        if stage.frozen:
            features = self._cached_features(pixels)
        else:
            features = encode(pixels, model.encoder, self.device)
        captions = caption_features(model, self.data.vocabulary, features, self.device)
        return float(cider(captions, self.data.val_captions).mean())

    def _begin_from_best(self, stage: Stage) -> None:
        """Restart from the best model so far; fit its word presence, which changes its CIDEr."""
        if self.progress.best >= 0:
            best = load_checkpoint(self.out).model.to(self.device)
            self.model.load_state_dict(best.state_dict())
        if processes.is_first():
            fit_to_images(self.model, self.data.pixels, self.data.references, self.device)
        processes.copy_first(self.model)
        self.average.load_state_dict(self.model.state_dict())
        self.progress.best = processes.from_first(partial(self._score, stage))
        if processes.is_first():
            save_checkpoint(self.out, self.average, self.data.vocabulary)

    def _log(self, entry: dict[str, Any]) -> None:
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
        save_state(self.out, state)

    def resume(self) -> bool:
        """Resume an earlier training in the same folder; return whether there was one.

        Raises CaptionerError if that training had another model or other settings.
        """
        modules = {"model": self.model, "averaging": self.averaging}
        state = load_state(self.out, self.data.vocabulary.words, modules, self.device)
        if state is None:
            return False
        self.progress = Progress(**state["progress"])
        self.optimizer_state = state["optimizer"]
        settings = self.config.settings(self.progress.stage)
        require_settings(self.out, state.get("settings", {}), settings)
        return True
