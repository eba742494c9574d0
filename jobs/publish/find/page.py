"""A page with thumbnails of what was found: one file, which needs no other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.find.search import Found
from captioner.jobs.publish.pages import render
from captioner.jobs.publish.pictures import pictures
from captioner.jobs.publish.privacy import public_text, public_uri
from captioner.jobs.storage.file_types import container_of
from captioner.jobs.storage.uris import file_name, is_http, is_local, local_path


@dataclass(frozen=True)
class Tile:
    """An image on the page: its thumbnail as a `data:` URL, or the `problem` that there is none."""

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
    page = render("found", heading=heading, summary=summary, tiles=list(_tiles(found)))
    try:
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _tiles(found: Sequence[Found]) -> Iterator[Tile]:
    made = pictures([image.image_uri for image in found])
    for image in found:
        picture, problem = made[image.image_uri]
        yield Tile(image, picture, public_text(problem, image.image_uri))
