"""What reaches stderr while hostile images are decoded."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from captioner.errors import ImageError
from captioner.image import decode_image
from captioner.image.silence import silence_codecs
from tests.support.hostile_files.unusual import UNUSUAL


def damaged_tiffs() -> list[bytes]:
    """Return TIFF files with damaged data, by which libtiff and Pillow complain in many ways."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8))
    files = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "raw"):
        file = io.BytesIO()
        noise.save(file, "TIFF", compression=compression)
        for place in (20, 200, 3_000):
            data = bytearray(file.getvalue())
            data[place : place + 30] = b"x" * 30
            files.append(bytes(data))
        files.append(file.getvalue()[:-40])
    return files


def test_codecs_write_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    silence_codecs()
    failures = 0
    for data in (*damaged_tiffs(), UNUSUAL["icon"](random.Random(2))):
        try:
            decode_image(data, 16)
        except ImageError:
            failures += 1
    assert failures > 5
    assert capfd.readouterr() == ("", "")
