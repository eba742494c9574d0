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
from pathlib import Path

import torch
from torch import Tensor

from captioner.allocator import keep_freed_memory
from captioner.calibration import save_calibration
from captioner.device import choose_device
from captioner.errors import CaptionerError
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.constraints import WordRules
from captioner.lstm.model import CaptionModel, LogitBias
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
from captioner.training.start import build_model, image_size
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
    model = build_model(config, data.vocabulary)
    _require_grid(model)
    trainer = Trainer(config, data, model)
    if not trainer.resume() and config.start:
        trainer.keep_start()
    for index, stage in enumerate(build_stages(config, data, trainer.model)):
        trainer.run(index, stage)
    finish(config, data)
    return Path(config.out)


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


def _vocabulary(config: TrainConfig, captions: Sequence[Sequence[str]]) -> Vocabulary:
    """Return the words of the initial model, followed by new ones if wanted;
    or those of captions.
    """
    of_captions = Vocabulary.build((text for texts in captions for text in texts), config.min_count)
    if not config.start:
        return of_captions
    known = load_checkpoint(config.start[0]).vocabulary
    return known.extended(of_captions) if config.new_words else known


def _paths(names: tuple[str, ...]) -> list[Path]:
    return [Path(name) for name in names]


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
