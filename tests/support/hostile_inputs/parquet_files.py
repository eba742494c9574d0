"""Parquet files, manifests and with images: damage, odd types, and kilobytes that grow."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

MIB = 1024 * 1024
URIS = ["a.jpg", "b.jpg"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _file(columns: Mapping[str, Any], **options: Any) -> Callable[[Path], object]:
    """Return what writes a file; a column may be a function, so that a big one is made late."""

    def write(path: Path) -> None:
        made = {name: value() if callable(value) else value for name, value in columns.items()}
        table = pa.table(made)
        rows = max(table.num_rows, 1)
        pq.write_table(table, path, **({"compression": "zstd", "row_group_size": rows} | options))

    return write


def _bomb(columns: Mapping[str, Any], **options: Any) -> Callable[[Path], object]:
    """Return what writes a file of which Arrow does not know that it has dictionaries."""
    return _file(columns, store_schema=False, **options)


def _not_utf8(values: list[bytes]) -> pa.Array:
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


def _many_row_groups(path: Path) -> None:
    table = pa.table({"image_uri": ["a.jpg"]})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(20_000):
            writer.write_table(table)


class _Keys(pe.KmsClient):  # type: ignore[misc]
    def __init__(self, _config: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _master: str) -> bytes:
        return key

    def unwrap_key(self, key: bytes, _master: str) -> bytes:
        return key


def _encrypted(path: Path, plaintext_footer: bool) -> None:
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["image_uri"]}, plaintext_footer=plaintext_footer
    )
    config.double_wrapping = False
    keys = pe.CryptoFactory(_Keys).file_encryption_properties(pe.KmsConnectionConfig(), config)
    table = pa.table({"image_uri": URIS})
    with pq.ParquetWriter(path, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)


def _damaged(path: Path, part: str) -> None:
    table = pa.table({"image_uri": [f"{n}.jpg" for n in range(1000)]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    if part == "page":
        data[200:300] = b"\xff" * 100
    elif part == "header":
        data[4:20] = b"\xff" * 16
    elif part == "footer":
        data[-200:-100] = b"\xff" * 100
    elif part == "length":
        data[-8:-4] = b"\xff\xff\xff\x7f"
    else:
        data = data[: len(data) // 2]
    path.write_bytes(data)


def _unknown_codec(path: Path) -> None:
    """Write LZO as the codec, which Arrow does not know, in the place of Snappy."""
    pq.write_table(pa.table({"image_uri": URIS}), path, compression="snappy")
    data = path.read_bytes()
    footer = data.rindex(b"\x18\timage_uri\x15\x02")  # path, then the codec
    at = footer + len(b"\x18\timage_uri\x15")
    path.write_bytes(data[:at] + b"\x06" + data[at + 1 :])


def _long(count: int, size: int) -> Callable[[], pa.Array]:
    """Return what makes one long text as the value of many rows, and little of it."""
    return lambda: pa.DictionaryArray.from_arrays(
        pa.repeat(0, count).cast(pa.int32()), ["x" * size]
    )


def _repeated(value: Any, rows: int) -> Callable[[], pa.Array]:
    return lambda: pa.repeat(value, rows)


def _images(rows: int, data: bytes | None) -> Callable[[], pa.Array]:
    scalar = pa.scalar({"bytes": data, "path": None}, IMAGE)
    return lambda: pa.repeat(scalar, rows)


def _long_lists() -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(range(0, 5001, 500), pa.int32()), _long(5000, MIB)())


def _null_lists() -> pa.Array:
    offsets = pa.array([0, 100_000_000], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.nulls(100_000_000, pa.int8()))


_VIEWS = {
    "image_uri": pa.array(URIS).cast(pa.string_view()),
    "label": pa.array(["x", None]).cast(pa.string_view()),
    "data": pa.array([b"x", b"y"]).cast(pa.binary_view()),
    "long": pa.array(["x", "y"], pa.large_string()),
    "list": pa.array([["x"], None], pa.large_list(pa.large_string())),
    "views": pa.array([["x"], None], pa.list_(pa.string_view())),
    "tags": pa.array([{"a": "x"}] * 2, pa.struct([("a", pa.string_view())])),
    "kind": pa.array(["x", "y"]).dictionary_encode(),
}
_MANIFESTS = {
    "views.parquet": _file(_VIEWS),
    "dictionary-uri.parquet": _file({"image_uri": pa.array(URIS).dictionary_encode()}),
    "null-uris.parquet": _file({"image_uri": ["a.jpg", None, " "]}),
    "only-nulls.parquet": _file({"image_uri": pa.nulls(3)}),
    "no-rows.parquet": _file({"image_uri": pa.array([], pa.string())}),
    "no-columns.parquet": _file({}),
    "odd-names.parquet": _file(
        {"image_uri": URIS, "": URIS, "a.b": URIS, "x\0y": URIS, "<b>\n": URIS, "é" * 9: URIS}
    ),
    "repeated-names.parquet": lambda path: pq.write_table(
        pa.table([pa.array(URIS)] * 2, names=["image_uri"] * 2), path
    ),
    "not-utf8.parquet": _file({"image_uri": URIS, "label": _not_utf8([b"\xff", b"x"])}),
    "uri-not-utf8.parquet": _file({"image_uri": _not_utf8([b"a.jpg", b"\xff.jpg"])}),
    "nested-not-utf8.parquet": _file(
        {"image_uri": URIS, "l": pa.ListArray.from_arrays([0, 1, 2], _not_utf8([b"x", b"\xff"]))}
    ),
    "encrypted.parquet": partial(_encrypted, plaintext_footer=False),
    "encrypted-column.parquet": partial(_encrypted, plaintext_footer=True),
    "damaged-page.parquet": partial(_damaged, part="page"),
    "damaged-header.parquet": partial(_damaged, part="header"),
    "damaged-footer.parquet": partial(_damaged, part="footer"),
    "damaged-length.parquet": partial(_damaged, part="length"),
    "cut.parquet": partial(_damaged, part="end"),
    "unknown-codec.parquet": _unknown_codec,
    "empty.parquet": lambda path: path.write_bytes(b""),
    "bomb-value.parquet": _bomb({"image_uri": ["a.jpg"] * 10_000, "t": _long(10_000, MIB // 4)}),
    "bomb-uri.parquet": _bomb({"image_uri": _long(2000, MIB)}),
    "bomb-lists.parquet": _bomb({"image_uri": ["a.jpg"] * 10, "l": _long_lists}),
    "bomb-null-lists.parquet": _bomb({"image_uri": ["a.jpg"], "l": _null_lists}),
    "bomb-struct.parquet": _bomb(
        {
            "image_uri": ["a.jpg"] * 5000,
            "s": lambda: pa.StructArray.from_arrays([_long(5000, MIB)()], ["a"]),
        }
    ),
    "bomb-page.parquet": _bomb({"image_uri": _long(1, 700 * MIB)}, use_dictionary=False),
    "bomb-label-page.parquet": _bomb(
        {"image_uri": ["a.jpg"] * 700, "t": _long(700, MIB)}, use_dictionary=False
    ),
    "bomb-rows.parquet": _bomb({"image_uri": _repeated("a.jpg", 50_000_000)}),
    "bomb-fixed-lists.parquet": _file(
        {"image_uri": ["a.jpg"] * 500, "l": lambda: pa.nulls(500, pa.list_(pa.int8(), 10**6))},
    ),
    "bomb-fixed-bytes.parquet": _bomb(
        {"image_uri": ["a.jpg"] * 500, "b": lambda: pa.nulls(500, pa.binary(10**6))}
    ),
    "bomb-prefixes.parquet": _bomb(
        {"image_uri": ["a.jpg"] * 1000, "t": _long(1000, MIB // 2)},
        use_dictionary=False,
        column_encoding={"image_uri": "PLAIN", "t": "DELTA_BYTE_ARRAY"},
    ),
    "wide.parquet": _file({"image_uri": ["a.jpg"], **{str(n): [n] for n in range(20_000)}}),
    "many-row-groups.parquet": _many_row_groups,
}
_IMAGES = {
    "image-paths.parquet": _file({"image": pa.array([{"path": "a.jpg"}] * 2, IMAGE)}),
    "image-views.parquet": _file(
        {"image": pa.array([b"x", None]).cast(pa.binary_view()), "label": _VIEWS["label"]}
    ),
    "image-path-not-utf8.parquet": _file(
        {
            "image": pa.StructArray.from_arrays(
                [pa.array([b"x", None]), _not_utf8([b"a", b"\xff"])], ["bytes", "path"]
            )
        }
    ),
    "bomb-null-images.parquet": _file({"image": _images(20_000_000, None)}),
    "bomb-images.parquet": _file({"image": _images(10_000_000, b"x")}),
    "bomb-image-label.parquet": _bomb(
        {"image": _images(5000, b"x" * 100), "label": _long(5000, MIB // 2)}
    ),
    "bomb-image.parquet": _file({"image": lambda: pa.array([b"\0" * (64 * MIB)] * 10)}),
}
PARQUET_FILES: Mapping[str, Callable[[Path], object]] = {**_MANIFESTS, **_IMAGES}
