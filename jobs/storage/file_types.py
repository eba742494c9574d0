"""What a file is by its name, and which column of a Parquet file holds images."""

from urllib.parse import quote, unquote

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.parquet.types import plain_type
from captioner.jobs.storage.uris import file_name

MAX_BYTES = 256 * 1024 * 1024  # of an image file, unless a job says otherwise

# What the captioner opens, some of it with an extra: without one, the row says which is missing.
IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".ico", ".j2c", ".j2k"),
    *(".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".psd", ".tga", ".tif", ".tiff", ".webp"),
    # RAW files of cameras
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc"),
    *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2"),
    *(".srf", ".srw", ".x3f"),
)
# Pictures, or what may hold some, that the captioner does not open.
UNOPENED_SUFFIXES = (
    *(".ai", ".bpg", ".cdr", ".cur", ".dcm", ".dds", ".djvu", ".doc", ".docx", ".emf", ".eps"),
    *(".exr", ".fits", ".flif", ".hdr", ".icns", ".indd", ".pcx", ".pdf", ".ppt", ".pptx", ".psb"),
    *(".qoi", ".sgi", ".svg", ".svgz", ".wmf", ".xcf", ".xpm"),
    *(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"),
)
# What often lies beside pictures, so that a count by extension tells something.
COMPANION_SUFFIXES = (
    *(".aae", ".cls", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".log", ".md", ".mp3"),
    *(".npy", ".py", ".thm", ".txt", ".wav", ".xml", ".xmp", ".yaml", ".yml", ".zip", ".zst"),
)
NO_EXTENSION = "without an image's extension"  # a reason for skipping
_GZIPPED_ARCHIVES = (".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (".tar", *_GZIPPED_ARCHIVES)
_PACKED = (".bz2", ".lz4", ".xz", ".zst", ".tbz", ".tbz2", ".txz", ".tzst")  # and not read
_GZIPPABLE_MANIFESTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
_GZIPPED_MANIFESTS = tuple(f"{suffix}.gz" for suffix in _GZIPPABLE_MANIFESTS)
MANIFEST_SUFFIXES = (*_GZIPPABLE_MANIFESTS, *_GZIPPED_MANIFESTS, ".parquet")
IMAGE = "image"  # the column name that decides between several columns of bytes


def is_image_name(name: str) -> bool:
    """Return whether a file name or path has the extension of an image."""
    return _suffix(name) in IMAGE_SUFFIXES


def why_no_image(name: str) -> str:
    """Return the reason to count for a file without an image's extension, with a known one."""
    suffix = _suffix(name)
    if suffix in UNOPENED_SUFFIXES:
        return f"not opened: {suffix}"
    return f"{NO_EXTENSION}: {suffix}" if suffix in COMPANION_SUFFIXES else NO_EXTENSION


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{suffix}".lower() if stem else ""


def is_archive(name: str) -> bool:
    """Return whether a file name or URL has the extension of a tar archive."""
    return file_name(name).lower().endswith(ARCHIVE_SUFFIXES)


def is_gzipped_archive(name: str) -> bool:
    """Return whether a file name or URL has the extension of a compressed tar archive."""
    return file_name(name).lower().endswith(_GZIPPED_ARCHIVES)


def is_packed_otherwise(name: str) -> bool:
    """Return whether a file name has the extension of a compressed file, but not by gzip."""
    return name.lower().endswith(_PACKED)


def is_parquet(name: str) -> bool:
    """Return whether a file name or URL has the extension of a Parquet file."""
    return file_name(name).lower().endswith(".parquet")


def manifest_suffix(name: str) -> str | None:
    """Return the suffix of a manifest's name, lower case, without ".gz"; None for other names."""
    name = name.lower()
    suffix = next((suffix for suffix in MANIFEST_SUFFIXES if name.endswith(suffix)), None)
    return suffix and suffix.removesuffix(".gz")


def is_manifest(name: str) -> bool:
    """Return whether a file name has the extension of a manifest."""
    return manifest_suffix(name) is not None


def is_text(name: str) -> bool:
    """Return whether a file name has the extension of a text file: a manifest, or just notes."""
    return manifest_suffix(name) == ".txt"


def is_named_like_a_file(name: str) -> bool:
    """Return whether a name has the extension of an image, an archive or a manifest."""
    return is_image_name(name) or is_archive(name) or is_manifest(name)


def container_of(uri: str) -> str:
    """Return the container of the image with a URI; the URI itself if there is none."""
    if uri.startswith("tar://"):
        return uri.partition("::")[2]
    return uri.rpartition("#row=")[0] or uri


def row_uri(container: str, row: int, column: str | None = None) -> str:
    """Return the URI of an image in a Parquet file; a `column` that was chosen is part of it."""
    return f"{container}#row={row}" + (f"&column={quote(column, safe='')}" if column else "")


def row_of(uri: str) -> tuple[int, str | None]:
    """Return the row of an image in a Parquet file, and its column if that was chosen.

    ValueError if the URI names no row.
    """
    row, _, column = uri.rpartition("#row=")[2].partition("&column=")
    return int(row), unquote(column) or None


def image_column(file: str, schema: pa.Schema, given: str | None = None) -> str | None:
    """Return the column that holds images, or None.

    UsageError if several columns might, or if the column that was `given` does not.
    """
    if given is not None:
        return _given_column(file, schema, given)
    structs = [field.name for field in schema if is_image_struct(field.type)]
    binaries = [field.name for field in schema if is_binary(field.type)]
    candidates = structs + binaries
    if IMAGE in candidates:
        return IMAGE
    if len(structs) == 1 or len(candidates) <= 1:
        return next(iter(candidates), None)
    names = ", ".join(candidates)
    raise UsageError(
        f"{file} has several columns of bytes: {names}; name the one with the images with "
        "--image-column"
    )


def _given_column(file: str, schema: pa.Schema, given: str) -> str:
    if given not in schema.names:
        found = ", ".join(schema.names)
        raise UsageError(f"{file} has no column {given}; its columns are: {found}")
    kind = schema.field(given).type
    if not is_image_struct(kind) and not is_binary(kind):
        raise UsageError(f"{file}: the column {given} must hold images as bytes, not {kind}")
    return given


def is_image_struct(kind: pa.DataType) -> bool:
    """Return whether a type is Hugging Face's type of images: a struct with a field `bytes`."""
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return is_binary(kind.field("bytes").type)


def is_binary(kind: pa.DataType) -> bool:
    """Return whether a type holds bytes of any length."""
    kind = plain_type(kind)
    return bool(pa.types.is_binary(kind))
