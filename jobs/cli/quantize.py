"""The command `captioner quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import positive, whole
from captioner.jobs.config.values import DEVICES
from captioner.jobs.errors import ExitCode
from captioner.jobs.messages import beside_a_bar

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands


def add_quantize(commands: "Commands") -> None:
    """Add the command `quantize`."""
    parser = commands.add_parser(
        "quantize",
        help="make a model's weights for --precision int8",
        description="Make the weights with which a model computes in whole numbers of 8 bits. Its "
        "encoder, which must be efficientnet_lite0, learns to give the features that it gave "
        "before. The images need no captions; a few thousand, of all kinds, are enough.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="model directory, which gets int8.safetensors")
    add("--images", metavar="DIR_OR_TAR", nargs="+", type=Path, required=True, help="images")
    add("--steps", metavar="N", type=positive, default=2000, help="steps of 16 images (2000)")
    add("--device", choices=DEVICES, default="auto", help="where to learn (auto)")
    add("--seed", metavar="N", type=whole, default=1, help="seed of everything random (1)")
    parser.set_defaults(command=_quantize)


def _quantize(options: dict[str, Any]) -> int:
    from captioner.training.quantize import quantize

    with beside_a_bar():
        path, error = quantize(**options)
    print(f"quantized: {path}; its features differ from the model's by {error:.1%} of their size")
    return ExitCode.DONE
