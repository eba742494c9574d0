"""One image to caption, and the columns in which sources and plans carry it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

IMAGE_URI = "image_uri"
IMAGE_VERSION = "image_version"
IMAGE_MEMBER = "image_member"  # only if there are images in containers
IMAGE_ACCESS = "image_access"  # only if a manifest lists the images
REPLACES = "replaces"  # the file of the table with the outdated row
PLAN_COLUMNS = (IMAGE_MEMBER, IMAGE_ACCESS, REPLACES)  # never in the table, never passed through

MEMBER_TYPE = pa.struct(
    [
        pa.field("container", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("column", pa.string()),
    ]
)
ACCESS_TYPE = pa.struct([pa.field("url", pa.string()), pa.field("refused", pa.string())])
MEMBERS, ACCESS = pa.field(IMAGE_MEMBER, MEMBER_TYPE), pa.field(IMAGE_ACCESS, ACCESS_TYPE)

T = TypeVar("T")


@dataclass(frozen=True)
class Member:
    """The place of an image in a container; the fields are those of MEMBER_TYPE.

    `container` is a path or URL. In a tar archive, `offset` and `size` are in bytes of the
    decompressed archive; in a Parquet file, `offset` is the row, `size` is unknown, and `column`
    has the images if it has to be chosen. An `error` says why the listing found the image
    unreadable.
    """

    container: str
    offset: int = 0
    size: int = 0
    error: str | None = None
    column: str | None = None


@dataclass(frozen=True)
class Access:
    """How an image is fetched if not by its key; the fields are those of ACCESS_TYPE.

    At a `url` that is no key, because its signature changes and must not be shown; or not at all,
    for the reason that it is `refused`.
    """

    url: str | None = None
    refused: str | None = None


@dataclass(frozen=True)
class ImageRecord:
    """An image to caption.

    `uri` is the key: an absolute path or a URL. `version` changes whenever the bytes do (for a
    local file "<mtime in ns>-<size>"); a member has the version of its container. It is None if the
    source does not know it.
    """

    uri: str
    version: str | None
    member: Member | None = None
    access: Access | None = None


def plan_schema(passthrough: pa.Schema | None = None, *some: pa.Field) -> pa.Schema:
    """Return the columns of a source or plan: the record's, then the manifest's own.

    `some` are the columns MEMBERS and ACCESS, if there are images that have such values.
    """
    return pa.schema([*_RECORD, *some, *(passthrough or ())])


def member_schema(passthrough: pa.Schema | None = None) -> pa.Schema:
    """Return the columns of a source or plan with images that are members of containers.

    A plan may have others, too, whose member is null.
    """
    return plan_schema(passthrough, MEMBERS)


def records_of(plan: pa.Table) -> list[ImageRecord]:
    """Return the records in the rows of a plan."""
    uris, versions = (plan.column(name).to_pylist() for name in (IMAGE_URI, IMAGE_VERSION))
    members = _structs(plan, IMAGE_MEMBER, Member)
    access = _structs(plan, IMAGE_ACCESS, Access)
    return [ImageRecord(*values) for values in zip(uris, versions, members, access, strict=True)]


def _structs(plan: pa.Table, name: str, kind: Callable[..., T]) -> list[T | None]:
    """Return the values of a column that a plan may lack."""
    if name not in plan.column_names:
        return [None] * len(plan)
    return [kind(**value) if value else None for value in plan.column(name).to_pylist()]


def passthrough_of(plan: pa.Table, keep: Collection[str] = ()) -> pa.Table:
    """Return a plan without the columns of records and plans, except those to `keep`."""
    others = {IMAGE_URI, IMAGE_VERSION, *PLAN_COLUMNS}.difference(keep)
    return plan.select([name for name in plan.column_names if name not in others])


_RECORD = (pa.field(IMAGE_URI, pa.string(), nullable=False), pa.field(IMAGE_VERSION, pa.string()))
