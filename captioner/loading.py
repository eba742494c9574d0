"""Load a captioner of any kind, or say its identity without loading it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.calibration import Calibration, read_calibration
from captioner.errors import CaptionerError, CheckpointError
from captioner.identity import identity
from captioner.model_directory import find_finished, fingerprint, model_identity, own_weights
from captioner.options import (
    HF,
    OPENAI,
    PRECISIONS,
    CaptionerOptions,
    is_language,
    server_from_environment,
)
from captioner.precision import precision_of

if TYPE_CHECKING:
    from captioner.captioner import Captioner


def load_captioner(name_or_directory: str | Path = "flickr8k", **options: Any) -> "Captioner":
    """Load a captioner, given its name and the other fields of CaptionerOptions.

    Raises the errors of `Captioner.load`.
    """
    known = {name: value for name, value in options.items() if value is not None}
    if known.get("base_url") is None:
        known = {**server_from_environment(), **known}
    return open_captioner(CaptionerOptions(str(name_or_directory), **known))


def open_captioner(options: CaptionerOptions, gpu: Path | None = None) -> "Captioner":
    """Load the captioner that the options describe; see `Captioner.load`. This may import torch.

    For a model of this package, `gpu` is the folder of the GPU process that searches, if any.
    """
    from captioner.image import ImageLimits

    check_options(options)
    captioner = _forwarding(options, gpu) if gpu else _open(options)
    captioner.limits = ImageLimits(options.max_pixels)
    return captioner


def _open(options: CaptionerOptions) -> "Captioner":
    if options.kind == HF:
        from captioner.hf.captioner import HfCaptioner

        return _calibrated(HfCaptioner.open(options), options)
    if options.kind == OPENAI:
        from captioner.openai.captioner import OpenaiCaptioner

        return _calibrated(OpenaiCaptioner.open(options), options)
    from captioner.lstm.captioner import LstmCaptioner

    return LstmCaptioner.open(options)


def _forwarding(options: CaptionerOptions, gpu: Path) -> "Captioner":
    from captioner.lstm.gpu.forwarding import ForwardingCaptioner
    from captioner.lstm.gpu.place import Place

    return ForwardingCaptioner(options, Place(gpu))


def _calibrated(captioner: "Captioner", options: CaptionerOptions) -> "Captioner":
    captioner.calibration = find_calibration(options)
    return captioner


def identify(options: CaptionerOptions) -> str:
    """Return the identity of a captioner without importing torch.

    Raises CheckpointError if there is no such model, or its training is unfinished.
    """
    model, precision = identify_model(options), precision_of(options)
    if options.kind:
        return identity(model, precision)
    directory = find_finished(options.checkpoint)
    return identity(model, precision, own_weights(directory, precision))


def identify_model(options: CaptionerOptions) -> str:
    """Return what `identify` does, whatever the precision and the version of the pipeline.

    A calibration holds for all of these.
    """
    check_options(options)
    if options.kind == OPENAI:
        from captioner.openai.prompt import openai_identity

        return openai_identity(options)
    if options.kind == HF:
        from captioner.hf.files import find_model, hf_identity

        return hf_identity(find_model(options), options)
    directory = find_finished(options.checkpoint)
    of_files = fingerprint(directory, options.calibration)
    return model_identity(directory.resolve().name, of_files, options.search)


def find_calibration(options: CaptionerOptions) -> Calibration | None:
    """Return the calibration of a captioner, among the options or beside the model; None without.

    Raises CheckpointError if it is damaged.
    """
    check_options(options)
    if options.calibration is not None:
        return Calibration.from_json(options.calibration)
    if options.kind == OPENAI:
        return None
    if options.kind == HF:
        from captioner.hf.files import find_model

        return read_calibration(find_model(options))
    return read_calibration(find_finished(options.checkpoint))


def check_options(options: CaptionerOptions) -> None:
    """Raise CaptionerError for options that a captioner of this kind does not have."""
    if not options.name:
        raise CheckpointError(f"{options.checkpoint!r} names no model")
    if not is_language(options.language):
        raise CaptionerError(
            "language must be an ISO 639-1 code, two lower-case letters such as en, not "
            f"{options.language!r}"
        )
    if options.send_pixels < 1:
        raise CaptionerError(f"send_pixels must be above 0, not {options.send_pixels}")
    if options.precision not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise CaptionerError(f"unknown precision {options.precision!r}: choose one of {choices}")
    if options.asks_server and options.precision != "auto":
        raise CaptionerError(f"the server of {options.checkpoint} computes: omit precision")
    if options.kind:
        if options.precision == "int8":
            raise CaptionerError(f"int8 is not for {options.checkpoint}: choose another precision")
        if options.embeddings:
            raise CaptionerError(f"{options.checkpoint} makes no embeddings: omit embeddings")
    elif options.language != "en" or options.prompt is not None:
        name = "prompt" if options.prompt is not None else "language"
        raise CaptionerError(
            f"{options.checkpoint} has one language and no prompt: omit {name}, or choose a "
            "captioner whose checkpoint begins with hf: or openai:"
        )
