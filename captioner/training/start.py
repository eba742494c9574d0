"""The model that a training starts from: new, or made of trained ones."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from captioner.errors import CaptionerError
from captioner.lstm import efficientnet_lite, yolox
from captioner.lstm.checkpoint import load_checkpoint
from captioner.lstm.encoder import IMAGENET_MEAN, IMAGENET_STD
from captioner.lstm.model import CaptionModel, ModelConfig
from captioner.lstm.presence import LOG_FLOOR
from captioner.lstm.vocabulary import Vocabulary
from captioner.training.config import TrainConfig
from captioner.training.training_data import image_size


def build_model(config: TrainConfig, vocabulary: Vocabulary) -> CaptionModel:
    """Return the initial model: that of `config.start`, or a new one with encoder weights."""
    size = image_size(config)
    if not config.start:
        return _new_model(config, size, len(vocabulary))
    model = average_checkpoints(config.start)
    former = replace(model.config, image_size=size)
    adds_detector = config.detector is not None and former.detector is None
    reads = former.decoder_channels
    if config.epochs:  # trained, the decoder learns to read whatever the grid has
        reads = None
    elif adds_detector:
        reads = model.decoder.channels
    larger = replace(former, decoder_channels=reads)
    if adds_detector:
        larger = replace(larger, detector=config.detector, detector_size=config.detector_size)
    model.config = former
    if larger != former or len(vocabulary) > len(model.decoder.embedding.weight):
        model = _extended(model, larger, len(vocabulary))
    if adds_detector:
        _load_detector_weights(model, config)
    return model


def _new_model(config: TrainConfig, size: int, words: int) -> CaptionModel:
    weights = config.encoder_weights
    from_file = weights is not None and Path(weights).is_file()
    lite = config.encoder == "efficientnet_lite0"
    if weights and lite and not from_file:
        raise CaptionerError(f"efficientnet_lite0 takes its weights from a file, not {weights!r}")
    model = CaptionModel(
        ModelConfig(
            encoder=config.encoder,
            image_size=size,
            mean=config.mean or (efficientnet_lite.MEAN if lite else IMAGENET_MEAN),
            std=config.std or (efficientnet_lite.STD if lite else IMAGENET_STD),
            hidden=config.hidden,
            heads=config.heads,
            dropout=config.dropout,
            detector=config.detector,
            detector_size=config.detector_size if config.detector else None,
        ),
        words,
        encoder_weights=None if from_file else weights,
    )
    if weights and from_file:
        _load_weights(model.encoder.trunk, Path(weights), f"encoder {config.encoder}")
    if config.detector:
        _load_detector_weights(model, config)
    return model


def average_checkpoints(names: Sequence[str]) -> CaptionModel:
    """Return a model with the mean of the weights of checkpoints.

    It only works if they were trained from a common model (Wortsman et al. 2022, arXiv:2203.05482).
    Raises CaptionerError if they have different words or layers, or were configured otherwise.
    """
    checkpoints = [load_checkpoint(name) for name in names]
    first = checkpoints[0]
    shapes = _shapes(first.model)
    averaging = AveragedModel(first.model)
    for name, checkpoint in zip(names, checkpoints, strict=True):
        same_words = checkpoint.vocabulary.has_same_words(first.vocabulary)
        if not same_words or _shapes(checkpoint.model) != shapes:
            raise CaptionerError(f"{names[0]} and {name} have different words or layers")
        _require_same_config(names[0], first.model.config, name, checkpoint.model.config)
        averaging.update_parameters(checkpoint.model)
    return cast(CaptionModel, averaging.module)


def _require_same_config(name: str, config: ModelConfig, other: str, others: ModelConfig) -> None:
    """Raise CaptionerError if two models of the same shapes would compute in different ways."""
    for field, value in asdict(config).items():
        different = getattr(others, field)
        if value != different and field != "dropout":  # which only training knows
            raise CaptionerError(
                f"{name} has {field} {value}, and {other} has {different}: only models that agree "
                "can be averaged"
            )


def _shapes(model: CaptionModel) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def _extended(model: CaptionModel, config: ModelConfig, words: int) -> CaptionModel:
    """Return a model with more layers, channels or words that, until it is trained, says the same.

    What reads the new channels of the grid has zeros for weights; new words are as unlikely as the
    rarest ones, and their embeddings are random.
    """
    larger = CaptionModel(config, words)
    former = model.state_dict()
    with torch.no_grad():
        cast(nn.Linear, larger.decoder.project_grid[0]).weight.zero_()
        larger.decoder.output_bias.fill_(float(former["decoder.output_bias"].min()))
        larger.presence.linear.bias.fill_(2 * LOG_FLOOR)
        larger.presence.log_prior.fill_(LOG_FLOOR)
        for key, value in larger.state_dict().items():
            if key in former:
                value[tuple(slice(size) for size in former[key].shape)] = former[key]
    return larger


def _load_detector_weights(model: CaptionModel, config: TrainConfig) -> None:
    path = Path(config.detector_weights or "")
    if not path.is_file():
        raise CaptionerError(
            f"the detector {config.detector} needs a file of its weights: give detector_weights"
        )
    assert model.encoder.detector is not None
    _load_weights(model.encoder.detector, path, f"detector {config.detector}")


def _load_weights(network: nn.Module, path: Path, what: str) -> None:
    """Load published weights, or a state of torchvision, whose extra keys are ignored."""
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(network, efficientnet_lite.EfficientNetLite):
            efficientnet_lite.import_published_weights(network, weights)
        elif isinstance(network, yolox.YoloxNano):
            yolox.import_published_weights(network, weights)
        else:
            network.load_state_dict({key: weights[key] for key in network.state_dict()})
    except (ValueError, LookupError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CaptionerError(f"{path}: does not fit the {what}: {error}") from error
