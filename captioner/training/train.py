"""Train a captioning model: first the decoder on cached features, then encoder and decoder.

The loss is cross-entropy with label smoothing on all references of an image at once, with
distillation if there are teachers; a last, optional stage is self-critical. AdamW follows a cosine
schedule after a short warm-up; an exponential moving average of the weights is evaluated and saved.
Each epoch ends with the CIDEr of beam search on the validation images: the output folder holds the
best model so far, and a stage ends early when CIDEr stops rising. An interrupted training resumes
after its last complete epoch. Finally, word presence is fitted on the training images and the
confidence is calibrated on the validation images. Until then, the output folder is marked as
unfinished, so that nobody captions with it.
"""

from contextlib import suppress
from pathlib import Path

import torch

from captioner.allocator import keep_freed_memory
from captioner.calibration import save_calibration
from captioner.device import choose_device
from captioner.errors import CaptionerError
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.model import CaptionModel
from captioner.model_directory import (
    find_checkpoint,
    is_unfinished,
    mark_finished,
    mark_unfinished,
)
from captioner.precision import fast_precision
from captioner.search_options import SearchOptions
from captioner.training.config import TrainConfig, make_folder
from captioner.training.evaluation.acceptability import require_stemmer
from captioner.training.evaluation.calibrate import calibrate
from captioner.training.evaluation.metrics import require_metrics
from captioner.training.fit_presence import fit_to_images, leave_out_rare_words
from captioner.training.processes import copy_first, count, first_before_others, is_first, together
from captioner.training.progress import warn
from captioner.training.stages import build_stages
from captioner.training.start import build_model
from captioner.training.trainer import Trainer
from captioner.training.training_data import TrainingData, load_data


def train(config: TrainConfig) -> Path:
    """Run a training, or resume it, in all processes of torchrun; return the model directory.

    Raises CaptionerError (DatasetError for the data) if the settings do not fit together, or if the
    training diverges.
    """
    with together(config.device):
        data = _train(config)
    if is_first():
        finish(config, data)
        mark_finished(Path(config.out))
    return Path(config.out)


def _train(config: TrainConfig) -> TrainingData:
    """Train all stages; return the data."""
    require_metrics()
    require_stemmer()
    keep_freed_memory()
    torch.manual_seed(config.seed)
    _require_other_models(config)
    make_folder(Path(config.out))
    _require_equal_parts(config.batch_size)
    with first_before_others():
        data = load_data(config)
    if len(data.pixels) < config.batch_size:
        raise CaptionerError(
            f"{len(data.pixels)} training images do not fill a batch of {config.batch_size}: "
            "choose a smaller batch size"
        )
    with first_before_others():  # it may download weights
        model = build_model(config, data.vocabulary)
    copy_first(model)
    require_grid(model)
    trainer = Trainer(config, data, model)
    resumed = trainer.resume()
    if is_first():
        mark_unfinished(Path(config.out))
    if not resumed:
        _warn_of_start(config)
    if not resumed and config.start and is_first():
        trainer.keep_start()
    for index, stage in enumerate(build_stages(config, data, trainer.model)):
        trainer.run(index, stage)
    return data


def _require_other_models(config: TrainConfig) -> None:
    """Raise CaptionerError if a model that the training reads is in the folder that it writes."""
    for name in (*config.start, *config.teachers):
        with suppress(OSError):
            if find_checkpoint(name).samefile(config.out):
                raise CaptionerError(
                    f"the training would overwrite the model {name}: choose another out than "
                    f"{config.out}"
                )


def _require_equal_parts(batch_size: int) -> None:
    if batch_size % count():
        raise CaptionerError(
            f"a batch of {batch_size} images cannot be divided evenly among {count()} processes: "
            f"choose a batch size that is a multiple of {count()}"
        )


def _warn_of_start(config: TrainConfig) -> None:
    for name in config.start:
        if is_unfinished(find_checkpoint(name)):
            warn(f"the training of {name} is unfinished: this one starts from its best epoch")
    if not config.start and not config.encoder_weights:
        warn(
            f"the encoder {config.encoder} has random weights: --encoder-weights gives better ones"
        )


def finish(config: TrainConfig, data: TrainingData) -> None:
    """Fit word presence and then the calibration to the best model."""
    device = choose_device(config.device)
    model = load_checkpoint(config.out).model.to(device)
    leave_out_rare_words(model, data.references, data.vocabulary)
    fit_to_images(model, data.pixels, data.references, device)
    save_checkpoint(Path(config.out), model, data.vocabulary)
    checkpoint = load_checkpoint(config.out)
    precision = fast_precision(config.device) if config.precision == "auto" else config.precision
    captioner = LstmCaptioner(checkpoint, device, SearchOptions(), precision=precision)
    calibration = calibrate(captioner, data.val_pixels, data.val_captions)
    save_calibration(Path(config.out), calibration)


def require_grid(model: CaptionModel) -> None:
    """Raise CaptionerError if the images do not fit the encoder, or its detector."""
    size, config = model.config.image_size, model.config
    if config.detector and not config.detector_size and size % 32:
        raise CaptionerError(
            f"image_size {size} does not fit the detector {config.detector}, which sees the same "
            "images: choose a multiple of 32"
        )
    try:
        with torch.no_grad():
            model.encoder.eval()(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    except RuntimeError as error:
        raise CaptionerError(
            f"image_size {size} is too small for the encoder {model.config.encoder}"
        ) from error
