"""A page with thumbnails of what was found: one file, which needs no other."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.publish.find.search import Found
from captioner.jobs.publish.report.privacy import public_text, public_uri
from captioner.jobs.publish.thumbnails import thumbnail
from captioner.jobs.storage.file_types import container_of
from captioner.jobs.storage.look_ahead import map_ahead
from captioner.jobs.storage.uris import file_name, is_http, is_local, local_path

SIDE = 320  # pixels of a thumbnail
READERS = 8  # threads that fetch images
AHEAD = 16
ASSETS = Path(__file__).parent.parent / "assets"


@dataclass(frozen=True)
class Tile:
    """An image on the page: its thumbnail as base64, or the `problem` that there is none."""

    image: Found
    picture: str
    problem: str

    @property
    def name(self) -> str:
        """The name of the file, or the whole URI if no browser can open it."""
        uri = self.image.image_uri
        return file_name(uri) if self.address else public_uri(uri)

    @property
    def address(self) -> str | None:
        """A URL that a browser can open, without its query, which may be signed."""
        uri = self.image.image_uri
        if container_of(uri) != uri:
            return None
        if is_http(uri):
            return public_uri(uri)
        return Path(local_path(uri)).as_uri() if is_local(uri) else None


def private_page(index: Path) -> Path:
    """Make an empty file beside the index, over an earlier one; only its owner may read it.

    Raise UsageError if the file cannot be written.
    """
    path = index.with_name(f"{index.stem}.found.html")
    try:
        path.unlink(missing_ok=True)
        path.touch(0o600, exist_ok=False)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}): give --page FILE") from error
    return path


def write_page(path: Path, heading: str, summary: str, found: Sequence[Found]) -> None:
    """Write a page about what was found; an image that cannot be fetched has a reason instead.

    Raise UsageError if the file cannot be written.
    """
    templates = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("found.html").render(
        heading=heading, summary=summary, tiles=list(_tiles(found))
    )
    try:
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _tiles(found: Sequence[Found]) -> Iterator[Tile]:
    for image, (picture, problem) in zip(found, _pictures(f.image_uri for f in found), strict=True):
        yield Tile(image, picture, problem)


def _pictures(uris: Iterable[str]) -> Iterator[tuple[str, str]]:
    with ThreadPoolExecutor(READERS) as pool:
        for picture in map_ahead(pool, _picture, uris, AHEAD):
            yield picture.result()


def _picture(uri: str) -> tuple[str, str]:
    try:
        return base64.b64encode(thumbnail(uri, SIDE)).decode(), ""
    except FetchError as error:
        return "", public_text(str(error), uri)
