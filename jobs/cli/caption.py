"""The command `captioner caption`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import add_captioner, captioner_of
from captioner.jobs.errors import ExitCode
from captioner.jobs.messages import printable, say
from captioner.schemas.caption_table import CaptionRow, Status

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands

COLUMNS = (
    *("image_uri", "status", "error", "caption", "confidence", "word_confidence"),
    *("alternatives", "captioner"),
)


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
    add_captioner(parser)
    add("--json", action="store_true", help="print a JSON object for each image, one a line")
    parser.set_defaults(command=_caption)


def _caption(options: dict[str, Any]) -> int:
    from captioner.jobs.caption import caption_images
    from captioner.jobs.storage.http.access import allow

    captioner = captioner_of(options)
    allow(options["images"])
    failed = 0
    for row in caption_images(options["images"], captioner):
        failed += row.status != Status.OK
        _print(row, as_json=options["json"])
    return ExitCode.TOO_MANY_FAILURES if failed else ExitCode.DONE


def _print(row: CaptionRow, *, as_json: bool) -> None:
    if as_json:
        values = asdict(row)
        print(json.dumps({name: values[name] for name in COLUMNS}))
    elif row.status == Status.OK:
        confidence = "-" if row.confidence is None else f"{row.confidence:.2f}"
        print(printable(f"{confidence}\t{row.caption}\t{row.image_uri}"))
    else:
        say(printable(f"{row.image_uri}: {row.status}: {row.error}"))
