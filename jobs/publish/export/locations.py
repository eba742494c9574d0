"""Where an image is: its path below a root folder, and its URL on a site."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from captioner.jobs.publish.export.policy import Unfit
from captioner.jobs.storage.file_types import container_of, is_image_name
from captioner.jobs.storage.uris import image_uri, is_http, is_local, local_path


@dataclass(frozen=True)
class Locations:
    """The images of a site: its files are below `root`, a folder or URL, and served at `base_url`.

    An image in a container has the container's path as its folder: `/data/train.tar/a/1.jpg`.
    """

    root: str | None = None
    base_url: str | None = None

    def name(self, uri: str) -> str:
        """Return an image's path relative to the root; raise Unfit if it is not below it."""
        folder = as_path(image_uri(str(self.root))).rstrip("/") + "/"
        path = as_path(uri)
        name = path.removeprefix(folder)
        if name == path or not is_plain(name):
            raise Unfit(f"not below {self.root}")
        return name

    def shown(self, uri: str) -> str:
        """Return an image's URL on the site, with its HTTP query; its URI if there is no site."""
        if self.base_url is None:
            return uri
        query = query_of(uri)
        return self.url(self.name(uri)) + (f"?{query}" if query else "")

    def url(self, name: str) -> str:
        """Return the URL of a path relative to the root."""
        return f"{str(self.base_url).rstrip('/')}/{quote(name.encode('utf-8', 'surrogateescape'))}"


def as_path(uri: str) -> str:
    """Return what stands for a path in a URI, without an HTTP query."""
    container = container_of(uri)
    if container != uri:
        member = uri.removesuffix(f"::{container}").removeprefix("tar://")
        return f"{as_path(container)}/{member.removeprefix(container).removeprefix('#')}"
    if is_local(uri):
        return local_path(uri)
    if is_http(uri):
        parts = urlsplit(uri)
        return unquote(urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")))
    return uri


def query_of(uri: str) -> str:
    """Return the HTTP query of an image, or of the container that it is in; "" without one."""
    container = container_of(uri)
    return urlsplit(container).query if is_http(container) else ""


def is_plain(name: str) -> bool:
    """Return whether a relative path stays below its folder."""
    return bool(name) and not {"", ".", ".."} & set(name.split("/")) and "\0" not in name


def without_suffix(name: str) -> str:
    """Return a path without the extension of an image, if it has one."""
    return str(PurePosixPath(name).with_suffix("")) if is_image_name(name) else name
