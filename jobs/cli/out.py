"""What the commands about a table have in common: OUT, its store, and a browser to show pages."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

OUT_HELP = (
    "folder or URL that `captioner run --out` wrote to; for a URL, endpoint and credentials come "
    "from --config, or from the environment (AWS_ENDPOINT_URL, FSSPEC_S3_KEY ...)"
)


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add OUT to a command, and the option `--config`, which `main` deals with."""
    parser.add_argument("out", metavar="OUT", help=OUT_HELP)
    add_config(parser)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option `--config` to a command that has no other use for a job file."""
    parser.add_argument(
        "--config",
        metavar="JOB.toml",
        type=Path,
        dest="storage_options_in",
        default=None,
        help="a job file, for its storage_options only",
    )


def show_in_browser(url: str) -> None:
    """Open a browser if there is a screen; one in the terminal would take it."""
    has_screen = sys.platform == "darwin" or any(
        name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if has_screen:
        webbrowser.open(url)
