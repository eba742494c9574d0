"""TrainConfig: the settings of a training. Importing this module does not import torch."""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from captioner.errors import CaptionerError

DATA = ("images", "captions", "val_images", "val_captions")
SEQUENCES = (*DATA, "start", "teachers")
OPTIONAL_TEXTS = ("split", "val_split", "encoder_weights", "detector", "detector_weights")
SIZES = ("image_size", "detector_size", "hidden", "heads")
COUNTS = (*SIZES, "batch_size", "min_count", "max_length", "samples")
COUNTS_FROM_0 = ("decoder_epochs", "finetune_epochs", "self_critical_epochs", "patience", "seed")
SHARES = ("dropout", "blind", "distillation", "reward_share", "label_smoothing", "ema_decay")
# May change between two runs of one training: they do not change its steps, but for rounding.
FREE = (*SEQUENCES, *OPTIONAL_TEXTS, "out", "device", "precision", "patience")
OF_STAGES = (
    ("decoder_epochs", "learning_rate"),
    ("finetune_epochs", "finetune_learning_rate", "encoder_learning_rate"),
    (
        "self_critical_epochs",
        "self_critical_learning_rate",
        "self_critical_encoder_learning_rate",
        "reward_share",
        "samples",
    ),
)
TRAINING_PRECISIONS = ("auto", "float32")
RATES = (*(name for names in OF_STAGES for name in names if name.endswith("rate")), "weight_decay")


@dataclass(frozen=True)
class TrainConfig:
    """A training, from captioned images to a model directory.

    The fields are the keys of a recipe (a TOML file); those of the first block are also flags of
    `captioner train`. Raises CaptionerError for an invalid value.

    images, captions: directories or tars of images, and a caption file for each.
    val_images, val_captions: the same, for choosing the best epoch.
    split, val_split: the split to read, if a Karpathy file holds several.
    precision: what to train and calibrate in, auto (what is fast on the device) or float32.
    start: the model directory or bundled checkpoint to start from; if several with a common
        ancestor are given, the mean of their weights. The architecture is kept: `encoder`,
        `encoder_weights`, `hidden` and `heads` are ignored. So is the vocabulary, unless
        `new_words` adds the words of the training captions; a `detector` may be added.
    encoder: a torchvision classification CNN (and /layer to end with), or efficientnet_lite0.
    encoder_weights: DEFAULT (torchvision's, over the network), or a file of weights.
    detector: yolox_nano, whose features stand beside those of the encoder; it stays as it is.
    detector_weights: a file of its weights.
    detector_size: side in pixels of the square that it sees, a multiple of 32.
    decoder_epochs: epochs with a frozen encoder, on cached features.
    finetune_epochs: epochs of encoder and decoder together, on augmented images.
    self_critical_epochs: the same, with sampled captions rewarded by their CIDEr-D.
    teachers: model directories whose averaged predictions are distilled into the model.

    image_size: side in pixels of the square that images are squeezed to; by default that of the
        model to start from, or else 224.
    mean, std: of each channel, for pixel values from 0 to 1; by default those that the encoder's
        published weights expect.
    blind: share of the images in an epoch of encoder and decoder of which only the detector's
        features are seen, so that the decoder learns to read them.
    min_count: the fewest occurrences of a word of the vocabulary.
    max_length: the number of words after which captions are truncated.
    learning rates: AdamW's at the peak of the schedule, of the decoder in each stage and of the
        encoder in the stages that train it.
    distillation: weight of the teachers in the cross-entropy, from 0 to 1.
    reward_share: weight of the reward in the self-critical loss; the rest is cross-entropy.
    samples: number of captions sampled for each image in a step.
    ema_decay: of the exponential moving average of the weights.
    patience: epochs without a better CIDEr after which a stage ends.
    """

    images: tuple[str, ...]
    captions: tuple[str, ...]
    val_images: tuple[str, ...]
    val_captions: tuple[str, ...]
    out: str
    split: str | None = None
    val_split: str | None = None
    device: str = "auto"
    precision: str = "auto"
    start: tuple[str, ...] = ()
    encoder: str = "efficientnet_lite0"
    encoder_weights: str | None = None
    detector: str | None = None
    detector_weights: str | None = None
    detector_size: int = 192
    new_words: bool = False
    decoder_epochs: int = 8
    finetune_epochs: int = 8
    self_critical_epochs: int = 0
    teachers: tuple[str, ...] = ()
    batch_size: int = 32
    seed: int = 1

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    hidden: int = 512
    heads: int = 8
    dropout: float = 0.3
    blind: float = 0.2
    min_count: int = 4
    max_length: int = 20
    learning_rate: float = 1e-3
    finetune_learning_rate: float = 5e-4
    encoder_learning_rate: float = 1e-4
    self_critical_learning_rate: float = 1e-4
    self_critical_encoder_learning_rate: float = 2e-5
    distillation: float = 0.5
    reward_share: float = 0.8
    samples: int = 5
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    ema_decay: float = 0.998
    patience: int = 3

    def __post_init__(self) -> None:
        missing = [name for name in (*DATA, "out") if not getattr(self, name)]
        if missing:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            raise CaptionerError(f"missing: {flags}; give them as options or in a recipe")
        for name in SEQUENCES:
            texts = all(isinstance(one, str) and one for one in getattr(self, name))
            self._require(name, texts, "a path or a list of paths")
        for name in ("out", "device", "encoder"):
            self._require(name, isinstance(getattr(self, name), str), "a string")
        for name in OPTIONAL_TEXTS:
            self._require(name, isinstance(getattr(self, name), str | None), "a string")
        self._require("new_words", isinstance(self.new_words, bool), "true or false")
        choices = " or ".join(TRAINING_PRECISIONS)
        self._require("precision", self.precision in TRAINING_PRECISIONS, choices)
        self._check_numbers()
        self._require("detector_size", self.detector_size % 32 == 0, "a multiple of 32")
        if self.hidden % self.heads:
            raise CaptionerError(f"hidden must be a multiple of heads ({self.heads})")
        if self.samples < 2:
            raise CaptionerError("samples must be at least 2: each is compared with the others")
        if (self.mean is None) != (self.std is None):
            raise CaptionerError("mean and std go together: give both or neither")
        if not self.start and not self.epochs:
            raise CaptionerError("no epochs: without a model to start from, give at least one")

    def _check_numbers(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            default = name == "image_size" and value is None
            self._require(name, default or _is_count(value, 1), "a whole number above 0")
        for name in COUNTS_FROM_0:
            self._require(name, _is_count(getattr(self, name), 0), "a whole number from 0")
        for name in SHARES:
            self._require(name, _is_number(getattr(self, name), most=1), "a number from 0 to 1")
        for name in RATES:
            self._require(name, _is_number(getattr(self, name)), "a number from 0")
        self._require("mean", _are_channels(self.mean), "a number from 0 for each of 3 channels")
        nonzero = _are_channels(self.std) and 0 not in (self.std or ())
        self._require("std", nonzero, "a number above 0 for each of 3 channels")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise CaptionerError(f"{name} must be {expected}, not {getattr(self, name)!r}")

    def settings(self, stage: int) -> dict[str, object]:
        """Return the settings, except files, on which the stages up to this one (from 0) depend."""
        later = {name for names in OF_STAGES[stage + 1 :] for name in names}
        return {name: value for name, value in asdict(self).items() if name not in {*FREE, *later}}

    @property
    def epochs(self) -> int:
        """The number of epochs of all stages together."""
        return self.decoder_epochs + self.finetune_epochs + self.self_critical_epochs

    @property
    def cache(self) -> Path:
        """The folder of decoded images and features; it can be removed after the training."""
        return Path(self.out) / "cache"


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist; CaptionerError if that fails or it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaptionerError(f"{folder}: cannot create this folder ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise CaptionerError(f"{folder}: this folder is not writable")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, most: float = math.inf) -> bool:
    """Return whether a value is a finite number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= most


def _are_channels(values: object) -> bool:
    """Return whether values are None, or a number for each of three channels."""
    if values is None:
        return True
    return isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))
