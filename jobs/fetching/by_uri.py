"""The URI of an image, as a table has it -> its bytes, whatever holds the image."""

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.fetching.parquet_rows import open_rows
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import container_of, is_parquet
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import Member


def fetch_image(uri: str, max_bytes: int) -> bytes:
    """Return the bytes of one image: a file, an object, a member of an archive or a Parquet row.

    Slower for many members than ImageReader, which reads a container in order. Raise FetchError.
    """
    container = container_of(uri)
    if container == uri or not is_parquet(container):
        return fetch(uri, max_bytes)
    try:
        row = int(uri.removeprefix(f"{container}#row="))
    except ValueError as error:
        raise FetchError(Status.NOT_FOUND, f"{uri} names no row") from error
    return as_fetch_error(lambda: _fetch_row(container, row, max_bytes))


def _fetch_row(container: str, row: int, max_bytes: int) -> bytes:
    with open_rows(container, max_bytes) as read:
        return read(Member(container, offset=row))
