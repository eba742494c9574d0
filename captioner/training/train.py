"""Train a captioning model: first the decoder on cached features, then encoder and decoder.

The loss is cross-entropy with label smoothing on all references of an image at once, with
distillation if there are teachers; a last, optional stage is self-critical. AdamW follows a cosine
schedule after a short warm-up; an exponential moving average of the weights is evaluated and saved.
Each epoch ends with the CIDEr of beam search on the validation images: the output folder holds the
best model so far, and a stage ends early when CIDEr stops rising. An interrupted training resumes
after its last complete epoch. Finally, word presence is fitted on the training images and the
confidence is calibrated on the validation images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from captioner.allocator import keep_freed_memory
from captioner.calibration import save_calibration
from captioner.device import choose_device
from captioner.errors import CaptionerError
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.constraints import WordRules
from captioner.lstm.efficientnet_lite import MEAN, STD, EfficientNetLite, import_published_weights
from captioner.lstm.encoder import IMAGENET_MEAN, IMAGENET_STD
from captioner.lstm.model import CaptionModel, LogitBias, ModelConfig
from captioner.lstm.vocabulary import EOS, SPECIAL_WORDS, Vocabulary
from captioner.options import CaptionerOptions
from captioner.search_options import SearchOptions
from captioner.training.acceptability import require_stemmer
from captioner.training.calibrate import calibrate
from captioner.training.cider import CiderD
from captioner.training.config import TrainConfig, make_folder
from captioner.training.dataset import load_split
from captioner.training.distill import cached_soft_targets
from captioner.training.fit_presence import fit_to_images
from captioner.training.losses import CrossEntropy
from captioner.training.metrics import require_metrics
from captioner.training.self_critical import SelfCritical
from captioner.training.tensors import References, cached_pixels
from captioner.training.trainer import Stage, Trainer, TrainingData


def train(config: TrainConfig) -> Path:
    """Run a training, or resume it; return the model directory.

    Raises CaptionerError (DatasetError for the data) if the settings do not fit together.
    """
    require_metrics()
    require_stemmer()
    keep_freed_memory()
    torch.manual_seed(config.seed)
    make_folder(Path(config.out))
    data = load_data(config)
    if len(data.pixels) < config.batch_size:
        raise CaptionerError(
            f"{len(data.pixels)} training images do not fill a batch of {config.batch_size}: "
            "choose a smaller batch size"
        )
    model = build_model(config, len(data.vocabulary))
    _require_grid(model)
    trainer = Trainer(config, data, model)
    if not trainer.resume() and config.start:
        trainer.keep_start()
    for index, stage in enumerate(build_stages(config, data, trainer.model)):
        trainer.run(index, stage)
    finish(config, data)
    return Path(config.out)


def image_size(config: TrainConfig) -> int:
    """Return the side of the images: as configured, else that of the initial model, else 224."""
    if config.image_size is None and config.start:
        return load_checkpoint(config.start[0]).model.config.image_size
    return config.image_size or ModelConfig.image_size


def finish(config: TrainConfig, data: TrainingData) -> None:
    """Fit word presence and then the calibration to the best model."""
    device = choose_device(config.device)
    model = load_checkpoint(config.out).model.to(device)
    fit_to_images(model, data.pixels, data.references, device)
    save_checkpoint(Path(config.out), model, data.vocabulary)
    captioner = LstmCaptioner.open(CaptionerOptions(str(config.out), config.device))
    calibration = calibrate(captioner, data.val_pixels, data.val_captions)
    save_calibration(Path(config.out), calibration)


def build_stages(config: TrainConfig, data: TrainingData, model: CaptionModel) -> tuple[Stage, ...]:
    """Return the stages in order; those without epochs do nothing."""
    supervised = CrossEntropy(
        data.references, config.label_smoothing, data.soft_targets, config.distillation
    )
    ended = [[[*ids, EOS] for ids in texts] for texts in data.references.ids]
    content = WordRules.of_vocabulary(data.vocabulary, choose_device(config.device)).content

    def bias(grid: Tensor) -> LogitBias:
        return LogitBias.of(model.presence, model.presence(grid), content, SearchOptions())

    reward = SelfCritical(
        CiderD(ended), supervised, config.samples, config.max_length, config.reward_share, bias
    )
    return (
        Stage("decoder", config.decoder_epochs, supervised, config.learning_rate),
        Stage(
            "finetune",
            config.finetune_epochs,
            supervised,
            config.finetune_learning_rate,
            config.encoder_learning_rate,
        ),
        Stage(
            "self_critical",
            config.self_critical_epochs,
            reward,
            config.self_critical_learning_rate,
            config.self_critical_encoder_learning_rate,
            sampling=True,
        ),
    )


def load_data(config: TrainConfig) -> TrainingData:
    """Read captions and images, decode images into the cache, and choose the vocabulary."""
    training = load_split(_paths(config.images), _paths(config.captions), config.split)
    validation = load_split(
        _paths(config.val_images), _paths(config.val_captions), config.val_split
    )
    if config.start:
        vocabulary = load_checkpoint(config.start[0]).vocabulary
    else:
        texts = (text for texts in training.captions for text in texts)
        vocabulary = Vocabulary.build(texts, config.min_count)
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


def _paths(names: tuple[str, ...]) -> list[Path]:
    return [Path(name) for name in names]


def build_model(config: TrainConfig, words: int) -> CaptionModel:
    """Return the initial model: that of `config.start`, or a new one with encoder weights."""
    if config.start:
        model = average_checkpoints(config.start)
        model.config = replace(model.config, image_size=image_size(config))
        return model
    weights = config.encoder_weights
    from_file = weights is not None and Path(weights).is_file()
    lite = config.encoder == "efficientnet_lite0"
    if weights and lite and not from_file:
        raise CaptionerError(f"efficientnet_lite0 takes its weights from a file, not {weights!r}")
    model = CaptionModel(
        ModelConfig(
            encoder=config.encoder,
            image_size=image_size(config),
            mean=config.mean or (MEAN if lite else IMAGENET_MEAN),
            std=config.std or (STD if lite else IMAGENET_STD),
            hidden=config.hidden,
            heads=config.heads,
            dropout=config.dropout,
        ),
        words,
        encoder_weights=None if from_file else weights,
    )
    if weights and from_file:
        _load_encoder_weights(model, Path(weights))
    return model


def _require_grid(model: CaptionModel) -> None:
    """Raise CaptionerError if the images are too small for the encoder."""
    size = model.config.image_size
    try:
        with torch.no_grad():
            model.encoder.eval()(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    except RuntimeError as error:
        raise CaptionerError(
            f"image_size {size} is too small for the encoder {model.config.encoder}"
        ) from error


def average_checkpoints(names: Sequence[str]) -> CaptionModel:
    """Return a model with the mean of the weights of checkpoints.

    It only works if they were trained from a common model (Wortsman et al. 2022, arXiv:2203.05482).
    Raises CaptionerError if they have different words or layers.
    """
    checkpoints = [load_checkpoint(name) for name in names]
    first = checkpoints[0]
    shapes = _shapes(first.model)
    averaging = AveragedModel(first.model)
    for name, checkpoint in zip(names, checkpoints, strict=True):
        same_words = checkpoint.vocabulary.has_same_words(first.vocabulary)
        if not same_words or _shapes(checkpoint.model) != shapes:
            raise CaptionerError(f"{names[0]} and {name} have different words or layers")
        averaging.update_parameters(checkpoint.model)
    return cast(CaptionModel, averaging.module)


def _shapes(model: CaptionModel) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in model.state_dict().items()}


def _load_encoder_weights(model: CaptionModel, path: Path) -> None:
    """Load published EfficientNet-Lite0 weights, or a torchvision state; extra keys are ignored."""
    trunk = model.encoder.trunk
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(trunk, EfficientNetLite):
            import_published_weights(trunk, weights)
        else:
            trunk.load_state_dict({key: weights[key] for key in trunk.state_dict()})
    except (ValueError, LookupError, RuntimeError, EOFError, UnpicklingError) as error:
        raise CaptionerError(
            f"{path}: does not fit the encoder {model.config.encoder}: {error}"
        ) from error
