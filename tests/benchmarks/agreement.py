"""What the agreement of two captioners says about the captions of both.

    python tests/benchmarks/agreement.py --second CHECKPOINT --images DIR_OR_TAR --captions FILE
        [--first CHECKPOINT] [--limit N]

The second captioner should be trained apart from the first (flickr8k). Prints, for the captions of
either, how well the confidence predicts which are acceptable: by its own signals, and beside the
other's caption. Both are out of sample, by cross-fitting; the difference of the AUROCs comes with
its standard error, by a bootstrap over the images. Then the acceptable share by the agreement.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from captioner import Captioner
from captioner.agreement import agreement
from captioner.caption import Caption
from captioner.lstm.vocabulary import tokenize
from captioner.training.data.dataset import load_split
from captioner.training.evaluation.acceptability import is_acceptable
from captioner.training.evaluation.evaluate import Confidence
from captioner.training.evaluation.fit_confidence import fit_confidence
from captioner.training.evaluation.reliability import Booleans, auroc, reliability
from captioner.training.evaluation.spoken import Spoken, listen
from captioner.words import FUNCTION_WORDS

DRAWS = 1000
LEVELS = (0.75, 0.5, 0.25, 0.0)


def swapped(spoken: Spoken) -> Spoken:
    """Return the same with the first captions as those in question."""
    first = spoken.first or ()
    acceptable = is_acceptable([caption.text for caption in first], spoken.references)
    return replace(spoken, captions=first, acceptable=acceptable, first=spoken.captions)


def standard_error(confidence: Confidence, acceptable: Booleans) -> float:
    """Return the standard error of what the AUROC gains beside the other captioner."""
    assert confidence.alone is not None and confidence.beside is not None
    random, gains = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = random.integers(len(acceptable), size=len(acceptable))
        without = auroc(confidence.alone[drawn], acceptable[drawn])
        beside = auroc(confidence.beside[drawn], acceptable[drawn])
        if without is not None and beside is not None:
            gains.append(beside - without)
    return float(np.std(gains))


def describe(name: str, spoken: Spoken) -> None:
    """Print how well the confidence works without and with the agreement."""
    calibration, confidence = fit_confidence(spoken)
    print(f"\n{name}: {spoken.acceptable.mean():.1%} of {len(spoken.captions):,} acceptable")
    for kind, values in confidence._asdict().items():
        result = reliability(values, spoken.acceptable)
        print(
            f"  {kind:<7} AUROC {result.auroc or 0:.3f}  ECE {result.ece:.3f} "
            f"(by chance {result.ece_by_chance:.3f})  Brier {result.brier:.3f}  "
            f"of the surest 20% {result.acceptable_at[1]:.1%}"
        )
    print(
        f"  standard error of the gain in AUROC {standard_error(confidence, spoken.acceptable):.3f}"
    )
    beside = calibration.beside
    assert beside is not None
    print("  weights", dict(zip(beside.signals, np.round(beside.weights, 2).tolist(), strict=True)))


def shares(spoken: Spoken) -> None:
    """Print how often both agree, and how many captions of either are acceptable then."""
    first = spoken.first or ()
    pairs = list(zip(spoken.captions, first, strict=True))
    agreed = np.array([agreement(one.text, other.text) for one, other in pairs])
    same = np.array([_words(one) == _words(other) for one, other in pairs])
    others = swapped(spoken).acceptable
    print(f"\n{'agreement':<16}{'images':>8}{'first acceptable':>18}{'second acceptable':>19}")
    edges = (1.01, *LEVELS)
    rows = {
        f"{low:.0%} to {min(high, 1):.0%}": (agreed >= low) & (agreed < high) & ~same
        for high, low in zip(edges, LEVELS, strict=False)
    }
    for name, chosen in {"same words": same, **rows}.items():
        if chosen.any():
            shown = f"{others[chosen].mean():>18.1%}{spoken.acceptable[chosen].mean():>19.1%}"
            print(f"{name:<16}{chosen.sum():>8,}{shown}")


def _words(caption: Caption) -> set[str]:
    return set(tokenize(caption.text)) - FUNCTION_WORDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", default="flickr8k")
    parser.add_argument("--second", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--captions", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    split = load_split([options.images], [options.captions], None).some(options.limit)
    first, second = Captioner.load(options.first), Captioner.load(options.second)
    spoken = listen(second, split, first=first)
    describe(f"first, {first.identity}", swapped(spoken))
    describe(f"second, {second.identity}", spoken)
    shares(spoken)


if __name__ == "__main__":
    main()
