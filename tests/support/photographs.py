"""Small photographs, all different."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def photograph(number: int) -> bytes:
    """Return a small JPEG file, with a different picture for each number."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(file, "JPEG")
    return file.getvalue()


def write_photographs(folder: Path, count: int, harm: bytes = b"") -> Path:
    """Write 000.jpg, 001.jpg ... to a folder, except those that exist; return the folder.

    Each begins with the bytes `harm` (see faults/).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.jpg"
        if not path.exists():
            path.write_bytes(harm + photograph(number))
    return folder
