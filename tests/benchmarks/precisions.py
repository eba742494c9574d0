"""Are captions the same in every precision, and in batches of every size?

    python tests/benchmarks/precisions.py PHOTOGRAPHS [--limit 1000] [--device cpu]

PHOTOGRAPHS is a folder of image files. They are captioned in float32, 32 at once, and then in other
batches, and in the other precisions of the device, each in other batches, too. Prints a line for
each: how many captions are the same, and by how much confidences differ, at most and in the mean.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from captioner import Caption, Captioner, CaptionerError
from captioner.image import DecodedImage
from captioner.jobs.sources.open_source import open_source

EXACT, OTHERS = "float32", ("float16", "bfloat16", "int8")
BATCH = 32
BATCHES = (1, 7, 64)


def main() -> None:
    """Caption the photographs in each way, and compare the captions."""
    options = _options()
    exact = Captioner.load(options.checkpoint, device=options.device, precision=EXACT)
    images = _prepared(exact, options.photographs, options.limit)
    usual = _captions(exact, images, BATCH)
    print(f"{len(images)} photographs, against {EXACT} in batches of {BATCH}")
    for size in BATCHES:
        _compare(f"{EXACT} in batches of {size}", _captions(exact, images, size), usual)
    for precision in OTHERS:
        try:
            other = Captioner.load(options.checkpoint, device=options.device, precision=precision)
        except CaptionerError as error:
            print(f"{precision}: {error}")
        else:
            together = _captions(other, images, BATCH)
            _compare(precision, together, usual)
            for size in BATCHES:
                name = f"{precision} in batches of {size}, against {precision} in {BATCH}"
                _compare(name, _captions(other, images, size), together)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--checkpoint", default="flickr8k")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def _prepared(captioner: Captioner, folder: Path, limit: int) -> list[DecodedImage]:
    batches = open_source(folder).batches
    uris = (uri for batch in batches for uri in batch["image_uri"].to_pylist())
    return [captioner.prepare(Path(uri).read_bytes()) for uri in islice(uris, limit)]


def _captions(captioner: Captioner, images: Sequence[DecodedImage], size: int) -> list[Caption]:
    batches = (images[first : first + size] for first in range(0, len(images), size))
    return [caption for batch in batches for caption in captioner.caption_batch(batch)]


def _compare(name: str, captions: Sequence[Caption], usual: Sequence[Caption]) -> None:
    pairs = list(zip(captions, usual, strict=True))
    same = np.array([a.text == b.text for a, b in pairs])
    apart = np.array([abs((a.confidence or 0) - (b.confidence or 0)) for a, b in pairs])
    where_same = apart[same].max(initial=0)
    print(
        f"{name}: {same.sum()} captions the same ({same.mean():.1%}); confidences differ by "
        f"{apart.max():.2g} at most, {apart.mean():.2g} in the mean, {where_same:.2g} at "
        "most where captions are the same",
        flush=True,
    )


if __name__ == "__main__":
    main()
