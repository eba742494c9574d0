"""The command `captioner caption`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import FLAGS
from captioner.jobs.config.values import DEVICES
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.messages import printable, say
from captioner.options import PRECISIONS, CaptionerOptions, server_from_environment
from captioner.schemas.caption_table import CaptionRow, Status
from captioner.search_options import SearchOptions

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands

COLUMNS = ("image_uri", "status", "error", "caption", "confidence", "alternatives", "captioner")


def add_caption(commands: "Commands") -> None:
    """Add the command `caption`."""
    parser = commands.add_parser(
        "caption",
        help="print the captions of a few images",
        description="Print confidence, caption and URI of each image, without a table. An image "
        "that cannot be captioned is named on stderr, and the exit code is then 3.",
    )
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="path, URL, or directory of images")
    add("--checkpoint", default="flickr8k", metavar="NAME", help=FLAGS["checkpoint"]["help"])
    add("--language", default="en", metavar="CODE", help=FLAGS["language"]["help"])
    add("--prompt", metavar="TEXT", help=FLAGS["prompt"]["help"])
    add("--trust-remote-code", action="store_true", help=FLAGS["trust_remote_code"]["help"])
    add("--beam-size", default=3, metavar="N", type=int, help="beams of the search (3)")
    add("--max-characters", default=125, metavar="N", type=int, help="longest caption (125)")
    add("--device", default="auto", choices=DEVICES, help="where the network runs (auto)")
    precision = FLAGS["precision"]["help"]
    add("--precision", default="auto", choices=PRECISIONS, help=f"{precision} (auto)")
    add("--json", action="store_true", help="print a JSON object for each image, one a line")
    parser.set_defaults(command=_caption)


def _caption(options: dict[str, Any]) -> int:
    from captioner.jobs.caption import caption_images
    from captioner.jobs.storage.access import allow

    names = ("checkpoint", "device", "precision", "language", "prompt", "trust_remote_code")
    captioner = CaptionerOptions(
        **{name: options[name] for name in names},
        search=search_of(options),
        **server_from_environment(),
    )
    allow(options["images"])
    failed = 0
    for row in caption_images(options["images"], captioner):
        failed += row.status != Status.OK
        _print(row, as_json=options["json"])
    return ExitCode.TOO_MANY_FAILURES if failed else ExitCode.DONE


def search_of(options: dict[str, Any]) -> SearchOptions:
    """Return the options of the search; raise UsageError for impossible ones."""
    names = ("beam_size", "max_characters")
    try:
        return SearchOptions(**{name: options[name] for name in names})
    except ValueError as error:
        raise UsageError(str(error)) from error


def _print(row: CaptionRow, *, as_json: bool) -> None:
    if as_json:
        values = asdict(row)
        print(json.dumps({name: values[name] for name in COLUMNS}))
    elif row.status == Status.OK:
        confidence = "-" if row.confidence is None else f"{row.confidence:.2f}"
        print(printable(f"{confidence}\t{row.caption}\t{row.image_uri}"))
    else:
        say(printable(f"{row.image_uri}: {row.status}: {row.error}"))
