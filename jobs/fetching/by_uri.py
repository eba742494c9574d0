"""The URI of an image in a table -> its bytes, whatever holds the image."""

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.fetching.parquet_rows import open_rows
from captioner.jobs.storage.failures import as_fetch_error
from captioner.jobs.storage.file_types import container_of, is_parquet, row_of
from captioner.schemas.caption_table import Status
from captioner.schemas.image_record import Member


def fetch_image(uri: str, max_bytes: int) -> bytes:
    """Return the bytes of one image: a file, an object, a member of an archive or a Parquet row.

    Slower for many members than ImageReader, which reads a container in order. Raise FetchError.
    """
    try:
        member = parquet_member(uri)
    except ValueError as error:
        raise FetchError(Status.NOT_FOUND, f"{uri} names no row") from error
    if member is None:
        return fetch(uri, max_bytes)
    return as_fetch_error(lambda: _fetch_row(member, max_bytes))


def parquet_member(uri: str) -> Member | None:
    """Return the place of an image in a Parquet file; None if it lies elsewhere.

    ValueError if the URI names no row.
    """
    container = container_of(uri)
    if container == uri or not is_parquet(container):
        return None
    row, column = row_of(uri)
    return Member(container, offset=row, column=column)


def _fetch_row(member: Member, max_bytes: int) -> bytes:
    with open_rows(member.container, max_bytes, member.column) as read:
        found = read(member)
    return fetch(found, max_bytes) if isinstance(found, str) else found
