"""The files of a Hugging Face model: where they are, and what identifies a captioner.

Importing this imports neither torch nor transformers.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from captioner.errors import CheckpointError, MissingExtraError
from captioner.model_directory import CALIBRATION, CONFIG, read_text
from captioner.openai.prompt import prompt_of
from captioner.options import HF, CaptionerOptions

WEIGHTS = "model*.safetensors"
FILES = (WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja")  # all that a model is loaded from
CODE = "*.py"  # only of a model whose code is trusted
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
IN_FOLDERS = "*/*"  # copies of the weights for other frameworks
CHARACTERS = 2  # in a token, at least, in most languages

_IS_PATH = re.compile(r"[/~]|\.{1,2}(?:/|$)|[A-Za-z]:\\|.*/$")  # no name on the hub is like this

# What models were trained to be asked that are not made for chats.
_PROMPTS = {
    "florence2": "<CAPTION>",
    "instructblip": "A short image caption.",
    "paligemma": "caption {language}",
}


def find_model(options: CaptionerOptions) -> Path:
    """Return the directory of a model: a local one, or in Hugging Face's cache.

    A model that is in neither is downloaded; one in the cache is used as it is. Raises
    CheckpointError if there is no such model or its weights could run code, MissingExtraError
    without huggingface_hub.
    """
    directory = Path(options.name)
    if not options.name or not directory.is_dir():
        if _IS_PATH.match(options.name):
            raise CheckpointError(f"{options.checkpoint}: no such directory: {directory.resolve()}")
        directory = _cached(options)
    _check(directory, options.checkpoint)
    return directory


def hf_settings(directory: Path, options: CaptionerOptions) -> dict[str, object]:
    """Return all that changes a model's captions besides its files, as JSON values."""
    return {
        "prompt": hf_prompt(directory, options),
        "language": options.language,
        "beam_size": options.search.beam_size,
        "max_characters": options.search.max_characters,
        "max_new_tokens": max_new_tokens(options),
        "calibration": _calibration(directory, options),
    }


def _calibration(directory: Path, options: CaptionerOptions) -> Mapping[str, object] | None:
    """Return the values of the calibration, among the options or beside the model."""
    path = directory / CALIBRATION
    if options.calibration is None and path.is_file():
        return _read_json(path)
    return options.calibration


def hf_identity(directory: Path, options: CaptionerOptions) -> str:
    """Return "hf:<directory or name on the hub>@<12 hex digits>", wherever the files are.

    The digits are of the files and the settings.
    """
    is_local = Path(options.name).is_dir()
    name = directory.resolve().name if is_local else options.name
    content = [_fingerprint(directory, _patterns(options)), hf_settings(directory, options)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{HF}{name}@{digest[:12]}"


def hf_prompt(directory: Path, options: CaptionerOptions) -> str | None:
    """Return the text that goes with each image; None for a model that needs none."""
    if options.prompt is not None:
        return options.prompt
    if prompt := _PROMPTS.get(model_type(directory)):
        return prompt.format(language=options.language)
    return prompt_of(options) if _is_for_chats(directory) else None


def model_type(directory: Path) -> str:
    """Return the architecture, as its configuration names it."""
    return str(_read_json(directory / CONFIG).get("model_type", ""))


def max_new_tokens(options: CaptionerOptions) -> int:
    """Return the most tokens to generate, enough for a caption of the greatest length."""
    return options.search.max_characters // CHARACTERS


def _patterns(options: CaptionerOptions) -> list[str]:
    return [*FILES, CODE] if options.trust_remote_code else [*FILES]


def _cached(options: CaptionerOptions) -> Path:
    """Return a model's directory in the cache, filled if need be."""
    hub, errors = import_extra("huggingface_hub"), import_extra("huggingface_hub.errors")
    import_extra("huggingface_hub.utils").disable_progress_bars()
    # The network library, which depends on the version, has errors of its own.
    faults = (OSError, ValueError, *errors.HfHubHTTPError.__bases__)
    try:
        return _snapshot(hub, options, faults)
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{options.checkpoint}: no such directory, and no such model on the Hugging Face hub "
            "that you may read: check the name, or log in with `hf auth login`"
        ) from error
    except faults as error:
        raise CheckpointError(
            f"{options.checkpoint}: no such directory, not in Hugging Face's cache, and it cannot "
            f"be downloaded ({first_line(error)}): give a directory, or download it where there is "
            f"a network, with `hf download {options.name}`"
        ) from error


def _snapshot(hub: Any, options: CaptionerOptions, faults: tuple[type[BaseException], ...]) -> Path:
    """Return the snapshot in the cache or, if it has no weights, a downloaded one.

    So a model does not change, and no worker asks the hub, while it is in the cache.
    """

    def snapshot(*, only_cached: bool) -> Path:
        patterns = {"allow_patterns": _patterns(options), "ignore_patterns": IN_FOLDERS}
        return Path(hub.snapshot_download(options.name, local_files_only=only_cached, **patterns))

    with suppress(*faults):
        directory = snapshot(only_cached=True)
        if any(directory.glob(WEIGHTS)):
            return directory
    return snapshot(only_cached=False)


def import_extra(name: str) -> Any:
    """Import a package of the extra `hf`; raise MissingExtraError without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{HF} needs transformers: pip install 'captioner[hf]'") from error


def _check(directory: Path, checkpoint: str) -> None:
    if not (directory / CONFIG).is_file():
        raise CheckpointError(
            f"{checkpoint}: no {CONFIG} in {directory}: give a directory that save_pretrained of "
            "transformers has written, or the name of a model on the Hugging Face hub"
        )
    if not any(directory.glob(WEIGHTS)):
        pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
        found = f", only {pickles[0]}, a format that can run code" if pickles else ""
        raise CheckpointError(
            f"{checkpoint}: no weights in the safetensors format ({WEIGHTS}){found}: if you trust "
            "them, load them with from_pretrained of transformers, and write a directory with "
            "save_pretrained"
        )


def _fingerprint(directory: Path, patterns: Iterable[str]) -> str:
    """Return a hash of the names and the content of files, 64 hex digits."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in directory.glob(pattern)}):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
        digest.update(f"{content} {path.name}\n".encode())
    return digest.hexdigest()


def _is_for_chats(directory: Path) -> bool:
    """Return whether the processor has a chat template, in any of the files that may hold it."""
    if (directory / "chat_template.jinja").is_file():
        return True
    files = (directory / name for name in ("chat_template.json", "processor_config.json"))
    return any("chat_template" in _read_json(path) for path in files if path.is_file())


def _read_json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({first_line(error)})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return values


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, or the error's name."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
