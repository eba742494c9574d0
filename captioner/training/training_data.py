"""The data of a training: images, and references in the words of its vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from captioner.device import choose_device
from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.model import ModelConfig
from captioner.lstm.vocabulary import SPECIAL_WORDS, Vocabulary
from captioner.training.config import TrainConfig
from captioner.training.data.dataset import load_split
from captioner.training.data.tensors import References, cached_pixels
from captioner.training.distill import SoftTargets, cached_soft_targets


@dataclass(frozen=True)
class TrainingData:
    """Training and validation images, uint8 [N, S, S, 3], with their captions in the same order."""

    vocabulary: Vocabulary
    references: References
    soft_targets: SoftTargets | None
    pixels: npt.NDArray[np.uint8]
    val_captions: list[tuple[str, ...]]
    val_pixels: npt.NDArray[np.uint8]


def load_data(config: TrainConfig) -> TrainingData:
    """Read captions and images, decode images into the cache, and choose the vocabulary."""
    training = load_split(_paths(config.images), _paths(config.captions), config.split)
    validation = load_split(
        _paths(config.val_images), _paths(config.val_captions), config.val_split
    )
    vocabulary = _vocabulary(config, training.captions)
    if len(vocabulary) == len(SPECIAL_WORDS):
        raise CaptionerError(
            f"no word occurs {config.min_count} times in the training captions: "
            "choose a smaller min_count"
        )
    references = References.of(training.captions, vocabulary, config.max_length)
    soft_targets = None
    if config.teachers:
        soft_targets = cached_soft_targets(
            config.teachers,
            training,
            references,
            vocabulary,
            config.cache,
            choose_device(config.device),
        )
    size = image_size(config)
    return TrainingData(
        vocabulary=vocabulary,
        references=references,
        soft_targets=soft_targets,
        pixels=cached_pixels(training, size, config.cache),
        val_captions=validation.captions,
        val_pixels=cached_pixels(validation, size, config.cache),
    )


def image_size(config: TrainConfig) -> int:
    """Return the side of the images: as configured, else that of the initial model, else 224."""
    if config.image_size is None and config.start:
        return load_checkpoint(config.start[0]).model.config.image_size
    return config.image_size or ModelConfig.image_size


def _vocabulary(config: TrainConfig, captions: Sequence[Sequence[str]]) -> Vocabulary:
    """Return the words of the initial model and, if wanted, new ones; or those of the captions."""
    of_captions = Vocabulary.build((text for texts in captions for text in texts), config.min_count)
    if not config.start:
        return of_captions
    known = load_checkpoint(config.start[0]).vocabulary
    return known.extended(of_captions) if config.new_words else known


def _paths(names: tuple[str, ...]) -> list[Path]:
    return [Path(name) for name in names]
