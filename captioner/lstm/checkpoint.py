"""Load and save a model directory.

A model directory holds `config.json` (a `ModelConfig`), `vocabulary.txt` (one word per line),
`model.safetensors` (the weights), and optionally `calibration.json` (a `Calibration`),
`int8.safetensors` (`Int8Weights`) and `MODEL_CARD.md`. Loading never executes code from it: pickled
weights are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from captioner.calibration import SIGNALS, Calibration, read_calibration
from captioner.errors import CheckpointError
from captioner.lstm.int8 import Int8Weights, load_int8
from captioner.lstm.model import CaptionModel, ModelConfig
from captioner.lstm.vocabulary import Vocabulary
from captioner.lstm.yolox import is_exact
from captioner.model_directory import (
    CALIBRATION,
    CONFIG,
    INT8,
    VOCABULARY,
    WEIGHTS,
    find_checkpoint,
    fingerprint,
    read_text,
)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a model directory; the model is in float32, on the CPU, in evaluation mode."""

    name: str
    directory: Path
    model: CaptionModel
    vocabulary: Vocabulary
    calibration: Calibration | None
    fingerprint: str  # 64 hexadecimal digits over the files that make its captions

    def int8_for(self, precision: str) -> Int8Weights | None:
        """Return the weights for int8, for this precision only; see `load_int8`."""
        return load_int8(self.directory, self.model.encoder) if precision == "int8" else None


def load_checkpoint(
    name_or_directory: str | Path, calibration: Mapping[str, object] | None = None
) -> Checkpoint:
    """Read and verify a model directory; CheckpointError names the file at fault.

    The values of another `calibration` may be used instead of the directory's.
    """
    directory = find_checkpoint(name_or_directory)
    config = _read_config(directory / CONFIG)
    vocabulary = _read_vocabulary(directory / VOCABULARY)
    try:
        model = CaptionModel(config, len(vocabulary))
    except ValueError as error:
        raise CheckpointError(f"{directory / CONFIG}: {error}") from error
    _load_weights(model, directory / WEIGHTS)
    return Checkpoint(
        name=directory.resolve().name,
        directory=directory,
        model=model.eval(),
        vocabulary=vocabulary,
        calibration=_calibration(directory, calibration),
        fingerprint=fingerprint(directory, calibration),
    )


def save_checkpoint(directory: Path, model: CaptionModel, vocabulary: Vocabulary) -> None:
    """Write configuration, vocabulary and weights, rounded to 16 bits.

    The parameters of the encoder and the decoder are rounded to bfloat16, so that they are the same
    in every precision they may compute in; what never computes in bfloat16, word presence and the
    exact layers of a detector, is rounded to float16, but for the few biases of word presence. The
    weights are replaced last and atomically, so a reader never sees half of them. An existing
    calibration is removed, and so are weights for int8, because they belong to other weights.

    Raises CheckpointError, naming the tensor, if a value is not finite; nothing is written then.
    """
    parameters = dict(model.named_parameters())
    weights = {
        key: _rounded(key, value, key in parameters) for key, value in model.state_dict().items()
    }
    if broken := _not_finite(weights):
        raise CheckpointError(f"the model is not saved in {directory}: {broken}")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(asdict(model.config), indent=2) + "\n")
    (directory / VOCABULARY).write_text("\n".join(vocabulary.words) + "\n", encoding="utf-8")
    partial = directory / f".{WEIGHTS}.partial"
    partial.write_bytes(save(weights))  # save_file would make it unreadable for other users
    for name in (CALIBRATION, INT8):
        (directory / name).unlink(missing_ok=True)
    partial.replace(directory / WEIGHTS)


def _rounded(key: str, value: Tensor, is_parameter: bool) -> Tensor:
    """Round a value; the statistics of a BatchNorm and the biases of word presence stay."""
    if key == "presence.linear.bias" or not value.is_floating_point():
        pass
    elif key.startswith("presence.") or is_exact(key.removeprefix("encoder.detector.")):
        value = value.half()
    elif is_parameter:
        value = value.bfloat16()
    return value.cpu().contiguous()


def _not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return which weights have values that are not finite, by the first of them; None if none."""
    for name, value in weights.items():
        if not value.isfinite().all():
            return f"{name} has values that are not finite"
    return None


def _read_config(path: Path) -> ModelConfig:
    try:
        values: dict[str, Any] = json.loads(read_text(path))
        if "model_type" in values:
            raise CheckpointError(
                f"{path.parent} is not a model of this package: if it is one of transformers, give "
                f"hf:{path.parent}"
            )
        values |= {key: tuple(values[key]) for key in ("mean", "std")}
        return ModelConfig(**values)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: not a model configuration ({error})") from error


def _calibration(directory: Path, values: Mapping[str, object] | None) -> Calibration | None:
    calibration = Calibration.from_json(values) if values else read_calibration(directory)
    if calibration is not None and tuple(calibration.signals) != SIGNALS:
        raise CheckpointError(
            f"{directory / CALIBRATION}: not a calibration of this kind of model "
            f"(signals must be {', '.join(SIGNALS)})"
        )
    return calibration


def _read_vocabulary(path: Path) -> Vocabulary:
    try:
        return Vocabulary(tuple(read_text(path).split()))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _load_weights(model: CaptionModel, path: Path) -> None:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); weights must be in the safetensors format"
        ) from error
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()  # the message has a line for each weight
        raise CheckpointError(f"{path}: does not fit {path.with_name(CONFIG)}: {first}") from error
    if broken := _not_finite(weights):
        raise CheckpointError(f"{path}: {broken}")
