"""What the commands about a table have in common: OUT, its store, and a browser to show pages."""

import argparse
import os
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from captioner.jobs.errors import JobError

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
        help="a job file, for its storage_options, and for the hosts that it allows",
    )


def configure_for(job_file: Path | None, out: str | None) -> None:
    """Use the storage options of a job file, and ask the hosts that it allows.

    Without one, and with an OUT on this machine, ask those that its last run could ask.
    """
    from captioner.jobs.config.files import access_of
    from captioner.jobs.storage.filesystems import configure

    if job_file:
        configure(*access_of(job_file))
    elif last := _last_job(out):
        with suppress(JobError):
            configure({}, access_of(last)[1])


def _last_job(out: str | None) -> Path | None:
    """Return the job file of the last run in OUT, if that is on this machine."""
    from captioner.jobs.storage.uris import is_local, local_path

    if not out or not is_local(out):
        return None
    return max(Path(local_path(out)).glob("runs/*/job.toml"), default=None)


def show_in_browser(url: str) -> None:
    """Open a browser if there is a screen; one in the terminal would take it."""
    has_screen = sys.platform == "darwin" or any(
        name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if has_screen:
        webbrowser.open(url)
