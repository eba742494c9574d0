"""Archives: damage, names that climb out of a folder, and headers that become gigabytes."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

MIB = 1024 * 1024
UNSAFE_NAMES = ("../a.jpg", "x/../../b.jpg", "/etc/c.jpg", "C:\\d.jpg", "x\\..\\..\\e.jpg")


def _tar(members: Mapping[str, bytes], **links: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            archive.addfile(_header(name, len(data)), io.BytesIO(data))
        for kind, target in links.items():
            header = tarfile.TarInfo(f"{kind}.jpg")
            header.type, header.linkname = getattr(tarfile, kind), target
            archive.addfile(header)
    return file.getvalue()


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    return header


def _block(name: str, size: int, kind: bytes) -> bytes:
    return _header(name, size, kind).tobuf(tarfile.GNU_FORMAT)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def _records(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return _block("pax", len(data), kind) + _padded(data)


def _pax(record: str, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return a pax header with one record, `key=value`."""
    data = f"{len(record.encode()) + 11:09d} {record}\n".encode()
    return _records(data, kind)


ONE = _tar({"a.jpg": b"x" * 1000})
SAFE = _tar({"1.jpg": b"x" * 1000, "2.jpg": b"y" * 1000})
_MEMBERS = ONE[:1536]  # without the zeros at the end


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _bomb(start: bytes, block: bytes, times: int = 192) -> Callable[[Path], object]:
    """Return what writes 1.5 GB as a .tgz: a start, 8 MiB of blocks that are repeated, an end."""

    def write(path: Path) -> None:
        member = gzip.compress(block * (8 * MIB // len(block)))
        path.write_bytes(gzip.compress(start) + member * times + gzip.compress(b"\0" * 1024))

    return write


def _zip(path: Path, names: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in names.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def _patched_zip(path: Path, old: bytes, new: bytes) -> None:
    _zip(path, {"a.jpg": b"x" * 1000})
    path.write_bytes(path.read_bytes().replace(old, new))


def _cut_zip(path: Path) -> None:
    _zip(path, {f"{n}.jpg": b"x" * 1000 for n in range(16)})
    path.write_bytes(path.read_bytes()[:-100])


def _link_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.jpg", b"x")


def _encrypted_zip(path: Path) -> None:
    """Write a zip whose only member has the flag of encryption, and 12 bytes more."""
    _zip(path, {"a.jpg": b"x" * 1000})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)


def _nameless_zip(path: Path) -> None:
    """Write a zip whose index has no name for its member, but a byte of something else."""
    _zip(path, {"x": b"x"})
    data = bytearray(path.read_bytes())
    lengths = data.index(b"PK\x01\x02") + 28
    data[lengths : lengths + 4] = b"\0\0\1\0"
    path.write_bytes(data)


def _big_zip(path: Path, entries: int) -> None:
    _zip(path, {f"{n}.jpg": b"" for n in range(entries)})


_GB = 3 * 2**29
_TARS = {
    "cut.tar": _bytes(SAFE[:2200]),
    "cut.tgz": _bytes(gzip.compress(SAFE)[:-30]),
    "empty.tar": _bytes(b""),
    "empty.tgz": _bytes(b""),
    "zeros.tar": _bytes(b"\0" * 10240),
    "random.tar": _bytes(bytes(n * 7 % 251 for n in range(20_000))),
    "random.tgz": _bytes(bytes(n * 7 % 251 for n in range(20_000))),
    "garbage-behind.tgz": _bytes(gzip.compress(SAFE) + b"garbage"),
    "unsafe-names.tar": _bytes(_tar(dict.fromkeys((*UNSAFE_NAMES, "ok.jpg"), b"x"))),
    "only-unsafe-names.tar": _bytes(_tar(dict.fromkeys(UNSAFE_NAMES, b"x"))),
    "links-and-devices.tar": _bytes(
        _tar({"a.jpg": b"x"}, SYMTYPE="/etc/passwd", LNKTYPE="a.jpg", CHRTYPE="", FIFOTYPE="")
    ),
    "nul-in-name.tar": _bytes(_pax("path=a\0b.jpg") + ONE),
    "repeated.tar": _bytes(_MEMBERS + ONE),
    "negative-size.tar": _bytes(_pax("size=-512") + ONE),
    "huge-size.tar": _bytes(_pax("size=9223372036854775807") + ONE),
    "size-no-number.tar": _bytes(_pax(f"size={'9' * 5000}") + ONE),
    "many-digits.tar": _bytes(_pax(f"comment={'9' * 500_000}") + ONE),
    "records-in-records.tar": _bytes(_records(b"2 " * 99_999 + b"=\n") + ONE),
    "many-headers.tar": _bytes(_pax("comment=x") * 5000 + ONE),
    "cut-header.tar": _bytes(_block("pax", 100_000, tarfile.XHDTYPE) + b"x" * 512),
    "bomb-pax.tgz": _bomb(_block("pax", _GB, tarfile.XHDTYPE), b"\0" * 512),
    "bomb-global.tgz": _bomb(b"", _pax("k=" + "v" * (MIB // 2), tarfile.XGLTYPE)),
    "bomb-long-name.tgz": _bomb(_block("x", _GB, tarfile.GNUTYPE_LONGNAME), b"x" * 512),
    "bomb-long-link.tgz": _bomb(_block("x", _GB, tarfile.GNUTYPE_LONGLINK), b"x" * 512),
    "bomb-sidecar.tgz": _bomb(_block("a.json", _GB, tarfile.REGTYPE), b" " * 512),
    "bomb-member.tgz": _bomb(_block("a.jpg", _GB, tarfile.REGTYPE), b"\0" * 512),
    "bomb-zeros.tgz": _bomb(ONE, b"\0" * 512),
}


def _sparse_bomb(path: Path) -> None:
    """Write a sparse file whose map goes on for ever: each block says that another one follows."""
    start = bytearray(_block("a.jpg", 0, tarfile.GNUTYPE_SPARSE))
    start[482] = 1
    start[148:156] = b"%06o\0 " % (sum(start[:148]) + sum(start[156:512]) + 8 * 32)
    more = (b"%011o\0" % 1) * 42 + b"\x01" + b"\0" * 7
    _bomb(bytes(start), more)(path)


_ZIPS = {
    "cut.zip": _cut_zip,
    "empty.zip": _bytes(b""),
    "random.zip": _bytes(bytes(n * 7 % 251 for n in range(20_000))),
    "no-members.zip": partial(_zip, names={}),
    "unsafe-names.zip": partial(_zip, names=dict.fromkeys((*UNSAFE_NAMES, "ok.jpg"), b"x")),
    "only-unsafe-names.zip": partial(_zip, names=dict.fromkeys(UNSAFE_NAMES, b"x")),
    "nul-in-name.zip": partial(_patched_zip, old=b"a.jpg", new=b"a\0jpg"),
    "link.zip": _link_in_zip,
    "no-name.zip": _nameless_zip,
    "encrypted.zip": _encrypted_zip,
    "many-entries.zip": partial(_big_zip, entries=100_000),
    "huge-directory.zip": partial(
        _patched_zip,
        old=b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
        new=b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff",
    ),
}
ARCHIVES: Mapping[str, Callable[[Path], object]] = {
    **_TARS,
    "bomb-sparse.tgz": _sparse_bomb,
    **_ZIPS,
}
