"""The commands `captioner index`, `captioner search` and `captioner duplicates`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.jobs.cli.job_options import number, whole
from captioner.jobs.cli.out import add_out, show_in_browser
from captioner.jobs.cli.text import aligned
from captioner.jobs.errors import ExitCode, UsageError
from captioner.jobs.messages import how_many, printable, say
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.storage.uris import file_name

if TYPE_CHECKING:
    from captioner.jobs.cli import Commands
    from captioner.jobs.publish.find.index import IndexUpdate
    from captioner.jobs.publish.find.search import Found, SearchResult
    from captioner.jobs.table.layout import OutFolder

INDEX_HELP = "file of the index (OUT/index.sqlite; for a URL, a file in ~/.cache/captioner)"
MOST = 1_000_000  # images that a search finds
WIDEST_TEXT = 60  # characters, before the images' names begin


def add_index(commands: "Commands") -> None:
    """Add the command `index`."""
    parser = commands.add_parser(
        "index",
        help="build or update the index of a table",
        description="Build the full-text index of a table, or bring it up to date: only files of "
        "the table that have changed, and reviews, are read. It may be deleted at any time.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--index", metavar="FILE", type=Path, help=INDEX_HELP)
    add("--json", action="store_true", help="print a JSON object")
    add("--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(command=_index)


def _index(options: dict[str, Any]) -> int:
    update = _up_to_date(_out(options), options)
    if options["json"]:
        print(json.dumps(asdict(update), indent=2))
    elif not options["quiet"]:
        print(_update_text(update))
    return ExitCode.DONE


def _update_text(update: "IndexUpdate") -> str:
    lines = {
        "images": f"{update.images:,}",
        "read": f"{how_many(update.rows_read, 'row')} in {how_many(update.files_read, 'file')}",
        "size": f"{update.bytes / 1e6:,.1f} MB",
        "index": update.index,
    }
    return aligned(lines)


def _out(options: dict[str, Any]) -> "OutFolder":
    from captioner.jobs.storage.backends.paths import out_path
    from captioner.jobs.table.layout import OutFolder

    return OutFolder(out_path(options["out"]))


def _up_to_date(out: "OutFolder", options: dict[str, Any]) -> "IndexUpdate":
    from captioner.jobs.publish.find.database import index_path
    from captioner.jobs.publish.find.index import update_index

    with job_errors(out.root):
        return update_index(out, index_path(out, options["index"]), quiet=options["quiet"])


def add_search(commands: "Commands") -> None:
    """Add the command `search`."""
    parser = commands.add_parser(
        "search",
        help="find images",
        description="Find the images whose texts fit words best, or with --like those that look "
        'most like a photograph, best first. Quotes make a phrase ("red coat"), and a star stands '
        "for any ending (snow*). The index is brought up to date first.",
    )
    add = parser.add_argument
    add("query", metavar="QUERY", nargs="?", help="words to search for")
    add_out(parser)
    add(
        "--like",
        metavar="IMAGE",
        help="a path, a URL or an image_uri of the table; needs a run with --embeddings",
    )
    add(
        "--checkpoint",
        metavar="NAME",
        default="flickr8k",
        help="with --like: the model of the run, bundled or a directory (flickr8k)",
    )
    add("--where", metavar="CONDITION", help="only images for which it holds: confidence > 0.7")
    add("--limit", metavar="N", type=whole, default=20, help="images to show, at most (20)")
    add("--json", action="store_true", help="print a JSON array")
    add("--open", action="store_true", help="show a page with thumbnails in the browser")
    add("--page", metavar="FILE", type=Path, help="write that page to a file")
    add("--index", metavar="FILE", type=Path, help=INDEX_HELP)
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(command=_search, take_rest=_take_out)


def _take_out(options: dict[str, Any], rest: Sequence[str]) -> None:
    """Take OUT from after an option; argparse took the one word before it for OUT."""
    if options["query"] is not None or len(rest) > 1:
        raise UsageError(f"more than QUERY and OUT: {' '.join(rest)}; put QUERY into quotes")
    options["query"], options["out"] = options["out"], rest[0]


def _search(options: dict[str, Any]) -> int:
    if not 1 <= options["limit"] <= MOST:
        raise UsageError(f"limit must be from 1 to {MOST:,}, not {options['limit']}")
    if options["query"] is None and options["like"] is None:
        raise UsageError(
            'give words and the table, captioner search "red coat" OUT, or --like IMAGE'
        )
    if options["query"] is not None and options["like"] is not None:
        raise UsageError("give either words to search for or --like IMAGE")
    result = _found(options)
    if result.partial:
        say("no text has all of these words; these have some")
    if not result.found:
        say("nothing found")
    _show(result, options["query"] or f"Like {file_name(options['like'])}", options)
    return ExitCode.DONE


def _found(options: dict[str, Any]) -> "SearchResult":
    out = _out(options)
    index = Path(_up_to_date(out, options).index)
    where, limit = options["where"], options["limit"]
    if options["like"] is None:
        from captioner.jobs.publish.find.search import search_words

        return search_words(index, options["query"], where, limit)
    from captioner.jobs.publish.find.alike import search_alike

    with job_errors(out.root):
        return search_alike(out, index, options["like"], options["checkpoint"], where, limit)


def _show(result: "SearchResult", heading: str, options: dict[str, Any]) -> None:
    if options["open"] or options["page"]:
        _show_page(result, heading, options)
    if options["json"]:
        print(json.dumps([asdict(image) for image in result.found], indent=2))
    elif not options["open"]:
        print("\n".join(_found_lines(result.found)), end="\n" if result.found else "")


def _show_page(result: "SearchResult", heading: str, options: dict[str, Any]) -> None:
    from captioner.jobs.publish.find.database import index_path
    from captioner.jobs.publish.find.page import private_page, write_page

    path = options["page"] or private_page(index_path(_out(options), options["index"]))
    count = len(result.found)
    condition = f" where {options['where']}" if options["where"] else ""
    summary = f"The best {count} of {options['out']}{condition}" if count else "Nothing found"
    write_page(path, heading, summary, result.found)
    say(f"page: {path}")
    if options["open"]:
        show_in_browser(path.absolute().as_uri())


def _found_lines(found: "Sequence[Found]") -> list[str]:
    """Return a line for each image: score, confidence, text, URI."""
    texts = [printable(image.text or "") for image in found]
    width = min(max(map(len, texts), default=0), WIDEST_TEXT)
    return [
        f"{image.score:6.2f}  {_confidence(image)}  {text:<{width}}  {printable(image.image_uri)}"
        for image, text in zip(found, texts, strict=True)
    ]


def _confidence(image: "Found") -> str:
    return f"{'' if image.confidence is None else f'{image.confidence:.2f}':>4}"


def add_duplicates(commands: "Commands") -> None:
    """Add the command `duplicates`."""
    parser = commands.add_parser(
        "duplicates",
        help="find images that are the same picture",
        description="Group the images of a table that have identical bytes or, after a run with "
        "--embeddings, look nearly the same: resized, compressed or slightly cropped copies.",
    )
    add_out(parser)
    add = parser.add_argument
    add("--threshold", metavar="P", type=number, default=0.9, help="lowest similarity (0.9)")
    add("--json", action="store_true", help="print a JSON array")
    add("--index", metavar="FILE", type=Path, help=INDEX_HELP)
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(command=_duplicates)


def _duplicates(options: dict[str, Any]) -> int:
    from captioner.jobs.publish.find.duplicates import find_duplicates

    if not 0 < options["threshold"] <= 1:
        raise UsageError(f"threshold must be above 0 and at most 1, not {options['threshold']}")
    out = _out(options)
    index = Path(_up_to_date(out, options).index)
    with job_errors(out.root):
        groups = find_duplicates(out, index, options["threshold"])
    if options["json"]:
        print(json.dumps([asdict(group) for group in groups], indent=2))
        return ExitCode.DONE
    for group in groups:
        print(f"{len(group.images)} images, similarity {group.similarity:.3f}")
        print("".join(f"  {printable(uri)}\n" for uri in group.images))
    if not groups:
        say("no duplicates")
    return ExitCode.DONE
