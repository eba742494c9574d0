"""Where models are, and what their files are called. Importing it does not import torch."""

from pathlib import Path

from captioner.errors import CheckpointError

BUNDLED = Path(__file__).parent / "checkpoints"
CONFIG, VOCABULARY, WEIGHTS = "config.json", "vocabulary.txt", "model.safetensors"
CALIBRATION = "calibration.json"


def find_checkpoint(name_or_directory: str | Path) -> Path:
    """The model directory: a path, or the name of a bundled checkpoint.

    Raises CheckpointError, naming the bundled ones, where there is none.
    """
    for directory in (Path(name_or_directory), BUNDLED / name_or_directory):
        if (directory / CONFIG).is_file():
            return directory
    bundled = ", ".join(sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}")))
    raise CheckpointError(
        f"no checkpoint {str(name_or_directory)!r}: give a model directory (with {CONFIG}) "
        f"or the name of a bundled one: {bundled or 'none in this installation'}"
    )


def read_text(path: Path) -> str:
    """The text of a model's file; raises CheckpointError naming it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
