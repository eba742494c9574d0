"""Small photographs, each with its own picture."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def photograph(number: int) -> bytes:
    """A small JPEG file; each number has its own picture."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(file, "JPEG")
    return file.getvalue()


def write_photographs(folder: Path, count: int, harm: bytes = b"") -> Path:
    """Fill a folder with 000.jpg and so on, as far as they are missing.

    `harm` (see faults/) goes before each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.jpg"
        if not path.exists():
            path.write_bytes(harm + photograph(number))
    return folder
