"""Files that are no images of a kind that is opened, whatever their names say."""

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Mapping

Make = Callable[[random.Random], bytes]
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"8BPS", b"II*\0", b"MM\0*")


def _zip(chance: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", chance.randbytes(9))
    return file.getvalue()


def _tar(chance: random.Random) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return file.getvalue()


def _video(chance: random.Random) -> bytes:
    return b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + chance.randbytes(99)


OTHERS: Mapping[str, Make] = {
    "empty": lambda chance: b"",
    "zeros": lambda chance: bytes(chance.randint(1, 5_000)),
    "noise": lambda chance: chance.randbytes(chance.randint(1, 5_000)),
    "text": lambda chance: b"no image\n" * chance.randint(1, 99),
    "html": lambda chance: b"<!DOCTYPE html><html><body>404</body></html>",
    "svg": lambda chance: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": lambda chance: b"%PDF-1.7\n%%EOF\n" + chance.randbytes(20),
    "postscript": lambda chance: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "zip": _zip,
    "tar": _tar,
    "gzip": lambda chance: gzip.compress(chance.randbytes(50)),
    "video": _video,
    "heic header": lambda chance: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + chance.randbytes(40),
    "raw header": lambda chance: b"II*\0\x10\0\0\0CR\2\0" + chance.randbytes(90),
    "jpeg xl header": lambda chance: b"\xff\x0a" + chance.randbytes(90),
    "only a signature": lambda chance: chance.choice(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
    ),
}
