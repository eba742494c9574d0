"""Pictures of many kinds, and what the captioner makes of them, for tests/captioner/test_golden.py.

`python -m tests.support.golden` writes the golden values: do so after raising PIPELINE_VERSION.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from captioner.caption import Caption

FOLDER = Path(__file__).parent.parent / "captioner" / "golden"
SIDE = 64
Pixels = npt.NDArray[np.uint8]
CAPTIONS, PIXELS = FOLDER / "captions.json", FOLDER / "pixels.png"


def pictures() -> Iterator[bytes]:
    """Yield files of several formats, modes, sizes and orientations."""
    sizes = (
        (300, 200),
        (90, 150),
        (64, 64),
        (700, 500),
        (40, 30),
        (257, 129),
        (200, 200),
        (96, 80),
    )
    rgb = [_picture(number, *size) for number, size in enumerate(sizes)]
    sideways = Image.Exif()
    sideways[0x0112] = 6  # its orientation
    yield _file(rgb[0], "JPEG", quality=90)
    yield _file(rgb[1], "JPEG", quality=90, exif=sideways)
    yield _file(rgb[2], "PNG")
    yield _file(rgb[3].convert("CMYK"), "JPEG", quality=90)
    yield _file(rgb[4].quantize(16), "GIF")
    yield _file(rgb[5].convert("L"), "PNG")
    yield _file(Image.merge("RGBA", (*rgb[6].split(), rgb[6].getchannel(0))), "PNG")
    yield _file(rgb[7], "WEBP", lossless=True)


def pixels_of_pictures() -> Pixels:
    """Return the pictures side by side, as a network is given them: [SIDE, N * SIDE, 3]."""
    from captioner.image import decode_image

    return np.concatenate([decode_image(data, SIDE).pixels for data in pictures()], axis=1)


def captions_of(pixels: Pixels) -> list[dict[str, Any]]:
    """Return the captions of pictures side by side, as JSON values."""
    from captioner import Captioner

    captioner = Captioner.load("flickr8k", device="cpu", precision="float32")
    captions = captioner.caption(np.split(pixels, pixels.shape[1] // SIDE, axis=1))
    return [_values(caption) for caption in captions]


def _picture(number: int, width: int, height: int) -> Image.Image:
    """Return colours that change from corner to corner, and a few shapes."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin((number + 2) * x * (channel + 1) + y * number) for channel in range(3)]
    pixels = (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (20 * number, 200, 90)
    return Image.fromarray(pixels)


def _file(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _values(caption: "Caption") -> dict[str, Any]:
    log_probs = [round(value, 5) for value in caption.token_log_probs or ()]
    return {"text": caption.text, "log_probs": log_probs, "confidence": caption.confidence}


def _renew() -> None:
    FOLDER.mkdir(exist_ok=True)
    pixels = pixels_of_pictures()
    CAPTIONS.write_text(json.dumps(captions_of(pixels), indent=1) + "\n")
    Image.fromarray(pixels).save(PIXELS)


if __name__ == "__main__":
    _renew()
