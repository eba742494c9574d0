"""What second opinions are worth: CIDEr over the share of images that a second captioner gets.

    python tests/benchmarks/second_opinion.py --images val.tar coco.tar \
        --captions val.jsonl coco.jsonl --names "Flickr8k val" COCO [--draw chart.svg] [--json FILE]

A first captioner captions all images, in a real run. The second is a server process that answers
with a reference caption, in real runs with `--redo-share`, once for each of an image's five
references; both captions are scored against the other four. Images are sent in the order of the
first captioner's confidence, the least certain first, at random, or by an oracle, which knows what
each image gains.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.support.opinions.asked import Opinions, ask
from tests.support.opinions.chart import draw
from tests.support.opinions.figures import METRICS, SHARES, Figures, figures

SHOWN = tuple(tenth / 10 for tenth in range(11))


def main() -> None:
    """Ask both captioners about each set of images, and print, write and draw what comes out."""
    options = _options()
    results = {}
    for name, images, captions in zip(options.names, options.images, options.captions, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            opinions = ask(images, captions, options.checkpoint, Path(folder))
        results[name] = {metric: figures(opinions, METRICS[metric]) for metric in METRICS}
        _print(name, opinions, results[name])
    if options.json:
        options.json.write_text(json.dumps(_values(results), indent=1) + "\n")
    if options.draw:
        draw({name: of_set["CIDEr"] for name, of_set in results.items()}, options.draw)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several = {"nargs": "+", "required": True}
    parser.add_argument("--images", type=Path, help="tars or folders", **several)
    parser.add_argument("--captions", type=Path, help="a file of references for each", **several)
    parser.add_argument("--names", help="what the chart calls each", **several)
    parser.add_argument("--checkpoint", default="flickr8k", help="the first captioner")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--draw", type=Path, help="SVG or PNG to draw CIDEr into")
    return parser.parse_args()


def _print(name: str, opinions: Opinions, of_set: dict[str, Figures]) -> None:
    print(f"\n{name}: {len(opinions.first)} images, {len(opinions.second)} draws", flush=True)
    for metric, found in of_set.items():
        share = found.share_of_oracle
        print(f"\n{metric}: first captioner {found.first:.3f}, second {found.second:.3f}")
        print(f"{'sent':>18}", *(f"{sent:>6.0%}" for sent in SHOWN))
        for label in ("by_confidence", "at_random", "by_oracle"):
            values = np.interp(SHOWN, SHARES, getattr(found, label))
            print(f"{label.replace('_', ' '):>18}", *(f"{value:>6.3f}" for value in values))
        print(f"in the table, after a run that sent half of the images: {found.half_measured:.3f}")
        print("area between by confidence and at random, as a share of the oracle's:")
        print(f"  {share.value:.3f} (95%: {share.low:.3f} to {share.high:.3f})")
        print(f"  {found.in_one_draw:.3f} with an oracle that knows each draw")
        print(f"  {found.second_is_even:.3f} if the second scored the same on every image")
        print("other orders, the same share:")
        print(f"  {found.knowing_the_first:.3f} by the first caption's true score")
        print(f"  {found.predicted:.3f} by a regression of the gain on all signals, cross-fitted")
        print(
            f"  {found.judged.judge:.3f} by a judge who knows both captions and two references, "
            f"scored by two others; by confidence then: {found.judged.confidence:.3f}"
        )


def _values(results: dict[str, dict[str, Figures]]) -> dict[str, object]:
    sets = {
        name: {metric: asdict(found) for metric, found in of_set.items()}
        for name, of_set in results.items()
    }
    return {"shares": SHARES, "sets": sets}


if __name__ == "__main__":
    main()
