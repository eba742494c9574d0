"""One image to caption, and the columns in which sources and plans carry it."""

from dataclasses import dataclass

import pyarrow as pa

IMAGE_URI = "image_uri"
IMAGE_VERSION = "image_version"
REPLACES = "replaces"  # the file of the table that has the row to be replaced
PLAN_COLUMNS = (REPLACES,)  # which no source and no table has


@dataclass(frozen=True)
class ImageRecord:
    """An image to caption.

    `uri` is the key: an absolute path, or a URL. `version` changes whenever the bytes do
    (for a local file "<mtime in ns>-<size>"); None where the source does not know it.
    """

    uri: str
    version: str | None


def plan_schema(passthrough: pa.Schema | None = None) -> pa.Schema:
    """The columns of a source and of a plan: the record's, then the manifest's own."""
    uri = pa.field(IMAGE_URI, pa.string(), nullable=False)
    record = [uri, pa.field(IMAGE_VERSION, pa.string())]
    return pa.schema([*record, *(passthrough or ())])
