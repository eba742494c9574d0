"""What a file is by its name, and which column of a Parquet file holds images."""

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.uris import file_name

_PLAIN = (".tar",)
GZIPPED_SUFFIXES = (".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (*_PLAIN, *GZIPPED_SUFFIXES)


def is_archive(name: str) -> bool:
    """Whether the name of a file, or a URL, ends like a tar archive's."""
    return file_name(name).lower().endswith(ARCHIVE_SUFFIXES)


def is_parquet(name: str) -> bool:
    """Whether the name of a file, or a URL, ends like a Parquet file's."""
    return file_name(name).lower().endswith(".parquet")


def container_of(uri: str) -> str:
    """What the image with a URI is in, if it is in a container; else the URI itself."""
    if uri.startswith("tar://"):
        return uri.partition("::")[2]
    return uri.rpartition("#row=")[0] or uri


# What Pillow reads, and HEIC, so that iPhone photographs are reported rather than passed over.
IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)


def is_image_name(name: str) -> bool:
    """Whether a file name ends like an image's."""
    stem, dot, suffix = _last(name).rpartition(".")
    return bool(stem) and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES


def _last(name: str) -> str:
    return name.rpartition("/")[2]


IMAGE = "image"  # the column's name that decides between several


def image_column(file: str, schema: pa.Schema) -> str | None:
    """The column of the images; None without one, UsageError if it might be several."""
    structs = [field.name for field in schema if is_image_struct(field.type)]
    binaries = [field.name for field in schema if is_binary(field.type)]
    candidates = structs + binaries
    if IMAGE in candidates:
        return IMAGE
    if len(structs) == 1 or len(candidates) <= 1:
        return next(iter(candidates), None)
    names = ", ".join(candidates)
    raise UsageError(f"{file} has several columns of bytes: {names}; name that of images {IMAGE}")


def is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return is_binary(kind.field("bytes").type)


def is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
