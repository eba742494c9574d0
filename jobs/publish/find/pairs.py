"""All pairs of similar vectors, exactly, without computing the similarity of most.

A vector is split into its coordinates along a few directions and the length of the rest. By the
inequality of Cauchy and Schwarz, the product of two such short vectors is at least the similarity
of the two whole ones, so a pair whose short product is below the threshold need not be compared.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

DIRECTIONS = 128
SAMPLE = 4096  # vectors from which the directions are chosen
BLOCK = 4096  # vectors that are compared with as many others at once
VERIFIED = 8192  # pairs whose whole vectors are in memory at once
DENSE = 1 << 17  # pairs in a block: from here on, multiplying all of its vectors is faster
ROUNDING = 1e-3
Whole = npt.NDArray[np.float16]  # of unit length [N, C]
Positions = npt.NDArray[np.intp]
Pairs = tuple[Positions, Positions, npt.NDArray[np.float32]]
Short = npt.NDArray[np.float32]  # [N, DIRECTIONS + 1]


def similar_pairs(vectors: Whole, threshold: float) -> Iterator[Pairs]:
    """Yield positions i < j and similarities of the vectors [N, C] that reach the threshold."""
    short = _shortened(vectors)
    for row in range(0, len(short), BLOCK):
        for column in range(row, len(short), BLOCK):
            bound = short[row : row + BLOCK] @ short[column : column + BLOCK].T
            i, j = np.nonzero(bound >= threshold - ROUNDING)
            later = i + row < j + column
            i, j = i[later] + row, j[later] + column
            if len(i) < DENSE:
                yield from _verified(vectors, i, j, threshold)
            else:
                yield _multiplied(vectors, i, j, threshold)


def _multiplied(vectors: Whole, i: Positions, j: Positions, threshold: float) -> Pairs:
    """Return those of many pairs in a block that are similar."""
    row, column = i.min(), j.min()
    one = vectors[row : i.max() + 1].astype(np.float32)
    other = vectors[column : j.max() + 1].astype(np.float32)
    similarity = (one @ other.T)[i - row, j - column]
    alike = similarity >= threshold
    return i[alike], j[alike], similarity[alike]


def _verified(vectors: Whole, i: Positions, j: Positions, threshold: float) -> Iterator[Pairs]:
    for start in range(0, len(i), VERIFIED):
        a, b = i[start : start + VERIFIED], j[start : start + VERIFIED]
        one, other = vectors[a].astype(np.float32), vectors[b].astype(np.float32)
        similarity = np.einsum("nc,nc->n", one, other)
        alike = similarity >= threshold
        if alike.any():
            yield a[alike], b[alike], similarity[alike]


def _shortened(vectors: Whole) -> Short:
    """Return the coordinates along the directions in which a sample varies most, and the rest."""
    sample = vectors[:: max(1, len(vectors) // SAMPLE)].astype(np.float32)
    _, directions = np.linalg.eigh(sample.T @ sample)
    directions = directions[:, -DIRECTIONS:]
    short = np.empty((len(vectors), directions.shape[1] + 1), np.float32)
    for start in range(0, len(vectors), BLOCK):
        whole = vectors[start : start + BLOCK].astype(np.float32)
        short[start : start + BLOCK, :-1] = part = whole @ directions
        rest = np.square(whole).sum(1) - np.square(part).sum(1)
        short[start : start + BLOCK, -1] = np.sqrt(np.maximum(rest, 0))
    return short
