"""Confidence for images unlike any that the model was trained on.

    python tests/benchmarks/out_of_domain.py [--checkpoint NAME] [--images DIR]

Prints a line for each kind of image: their number, and their median and greatest confidence. Noise,
flat colours, pages of text and drawings are generated; photographs and scans come from
scikit-image. `--images` adds a folder for comparison, such as photographs like the training's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from skimage import data

SIZE = 400
COUNT = 20
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SCANS = ("brick", "coins", "grass", "gravel", "moon", "page", "text", "immunohistochemistry")
TEXT = "the report shows that revenue grew in each quarter while costs fell and so did debt"


def noise(random: np.random.Generator) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


def flat(random: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (SIZE, SIZE), _colour(random))


def page_of_text(random: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (620, 800), "white")
    pen = ImageDraw.Draw(page)
    for line in range(40, 760, 16):
        pen.text((60, line), " ".join(random.choice(TEXT.split(), 12)), fill="black")
    return page


def drawing(random: np.random.Generator) -> Image.Image:
    sheet = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(sheet)
    for shape in random.permutation([pen.ellipse, pen.rectangle, pen.line] * 6):
        left, top, width, height = random.integers(20, SIZE // 2, 4).tolist()
        colour = _colour(random)
        if shape == pen.line:
            pen.line((left, top, left + width, top + height), fill=colour, width=3)
        else:
            shape((left, top, left + width, top + height), outline=colour, width=3)
    return sheet


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


DRAWN: tuple[Callable[[np.random.Generator], Image.Image], ...] = (
    noise,
    flat,
    page_of_text,
    drawing,
)


def main() -> None:
    """Write the images, caption them in one run, and print a line for each folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default="flickr8k")
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, images = Path(folder) / "out", Path(folder) / "images"
        write_images(images)
        if options.images:
            (images / "given").symlink_to(options.images.absolute())
        _caption(images, out, options.checkpoint)
        print(f"{'kind':<14} {'images':>6} {'median':>7} {'most':>7}")
        for kind, confidences in sorted(_confidences(out).items()):
            median, most = statistics.median(confidences), max(confidences)
            print(f"{kind:<14} {len(confidences):>6} {median:>7.3f} {most:>7.3f}")


def write_images(folder: Path) -> None:
    """Write a folder for each kind of image."""
    for draw in DRAWN:
        random = np.random.default_rng(0)
        for number in range(COUNT):
            _save(draw(random), folder / draw.__name__ / f"{number}.png")
    for kind, names in (("photographs", PHOTOGRAPHS), ("scans", SCANS)):
        for name in names:
            _save(_picture(getattr(data, name)()), folder / kind / f"{name}.png")


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _caption(images: Path, out: Path, checkpoint: str) -> None:
    lines = [json.dumps({"image_uri": str(path)}) for path in sorted(images.glob("*/*"))]
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("\n".join(lines))
    arguments = ["run", manifest, "--out", out, "--checkpoint", checkpoint, "--quiet"]
    subprocess.run([sys.executable, "-m", "captioner.jobs", *map(str, arguments)], check=True)


def _confidences(out: Path) -> dict[str, list[float]]:
    table = pq.read_table(out / "captions", columns=["image_uri", "confidence"])
    kinds: dict[str, list[float]] = {}
    for row in table.to_pylist():
        if row["confidence"] is not None:
            kinds.setdefault(Path(row["image_uri"]).parent.name, []).append(row["confidence"])
    return kinds


if __name__ == "__main__":
    main()
