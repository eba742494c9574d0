"""The stages of a training: their losses, learning rates and epochs; and the progress."""

from dataclasses import dataclass

from torch import Tensor

from captioner.device import choose_device
from captioner.lstm.constraints import WordRules
from captioner.lstm.model import CaptionModel, LogitBias
from captioner.lstm.vocabulary import EOS
from captioner.search_options import SearchOptions
from captioner.training.cider import CiderD
from captioner.training.config import TrainConfig
from captioner.training.losses import CrossEntropy, Loss
from captioner.training.self_critical import SelfCritical
from captioner.training.training_data import TrainingData


@dataclass(frozen=True)
class Stage:
    """A part of a training; an encoder learning rate of 0 freezes the encoder."""

    name: str
    epochs: int
    loss: Loss
    learning_rate: float
    encoder_learning_rate: float = 0.0
    sampling: bool = False  # whether the loss samples captions, which needs word presence

    @property
    def frozen(self) -> bool:
        return self.encoder_learning_rate == 0


@dataclass
class Progress:
    """The progress of a training, saved after each epoch."""

    stage: int = 0
    epoch: int = 0  # complete epochs of this stage
    best: float = -1.0  # below any CIDEr, so that the first epoch is always saved
    since_best: int = 0


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
