"""Soft targets: the averaged predictions of an ensemble of teachers, for distillation.

The teachers' word distributions are averaged at every word of every reference, once, on the
original images; the student learns from them on augmented ones. Only the most probable words are
kept, so that the targets of a training set fit into a small file.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captioner.device import mixed_precision
from captioner.errors import CaptionerError
from captioner.lstm.checkpoint import Checkpoint, load_checkpoint
from captioner.lstm.vocabulary import PAD, Vocabulary
from captioner.model_directory import find_finished
from captioner.training.data.dataset import Split
from captioner.training.data.tensors import (
    References,
    cached_features,
    cached_pixels,
    images_key,
    written,
)
from captioner.training.progress import bar, say

KEPT_WORDS = 16  # of each distribution; they hold almost all of its mass
BATCH = 32


@dataclass(frozen=True)
class SoftTargets:
    """The K most probable words at each of the T positions of R references."""

    ids: npt.NDArray[np.uint16]  # [R, T, K]
    probabilities: npt.NDArray[np.float16]  # [R, T, K], with sums of at most 1
    first: list[int]  # the row of each image's first reference, then the number of rows

    def of(self, images: Sequence[int], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids int64 and probabilities float32 [N, B, T, K] for `targets` [N, B, T]."""
        beams, length = targets.shape[1:]
        shape = (len(images), beams, length, self.ids.shape[2])
        ids, probabilities = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for n, image in enumerate(images):
            rows = slice(self.first[image], self.first[image + 1])
            start = beams - (rows.stop - rows.start)
            ids[n, start:] = self.ids[rows, :length]
            probabilities[n, start:] = self.probabilities[rows, :length]
        return torch.from_numpy(ids), torch.from_numpy(probabilities)


def cached_soft_targets(
    teachers: Sequence[str],
    split: Split,
    references: References,
    vocabulary: Vocabulary,
    cache: Path,
    device: torch.device,
) -> SoftTargets:
    """Return the soft targets of model directories for a training split, cached in a file.

    Raises CaptionerError if the vocabulary of a teacher differs from the student's, or if a
    teacher is unfinished: it would teach something else as soon as its training continues.
    """
    checkpoints = [load_checkpoint(find_finished(teacher)) for teacher in teachers]
    for teacher, checkpoint in zip(teachers, checkpoints, strict=True):
        if not checkpoint.vocabulary.has_same_words(vocabulary):
            raise CaptionerError(
                f"teacher {teacher} has another vocabulary: train both on the same captions"
            )
    fingerprints = [checkpoint.fingerprint for checkpoint in checkpoints]
    text = f"{fingerprints}{images_key(split)}{references.ids}"
    path = cache / f"soft-targets-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    if not path.is_file():
        features = []
        for checkpoint in checkpoints:
            pixels = cached_pixels(split, checkpoint.model.config.image_size, cache)
            encoder = checkpoint.model.to(device).encoder
            features.append(cached_features(pixels, encoder, cache, device))
        say(f"predicting {sum(map(len, references.ids)):,} captions by {len(teachers)} teachers")
        with written(path) as partial:
            np.save(partial, _teacher_distributions(checkpoints, features, references, device))
    packed = np.load(path, mmap_mode="r")  # [2, R, T, K]
    counts = [len(texts) for texts in references.ids]
    return SoftTargets(packed[0], packed[1].view(np.float16), [0, *np.cumsum(counts).tolist()])


@torch.inference_mode()
def _teacher_distributions(
    teachers: list[Checkpoint],
    features: list[npt.NDArray[np.float16]],
    references: References,
    device: torch.device,
) -> npt.NDArray[np.uint16]:
    """Return ids, and the float16 bits of probabilities: uint16 [2, R, T, K]."""
    longest = 1 + max(len(ids) for texts in references.ids for ids in texts)
    rows = sum(len(texts) for texts in references.ids)
    kept = min(KEPT_WORDS, len(teachers[0].vocabulary))
    result = np.zeros((2, rows, longest, kept), np.uint16)
    row = 0
    starts = range(0, len(references.ids), BATCH)
    for start in bar(starts, "teachers", " batches"):
        images = range(start, min(start + BATCH, len(references.ids)))
        inputs, targets = (tokens.to(device) for tokens in references.tokens(images))
        words = targets != PAD
        mean = torch.zeros(())
        for teacher, grids in zip(teachers, features, strict=True):
            grid = torch.from_numpy(np.array(grids[start : images.stop])).float().to(device)
            with mixed_precision(device):
                hidden = teacher.model.decoder(grid, inputs)[words]
                logits = teacher.model.decoder.predict(hidden)  # [words, V]
            mean = mean + logits.float().softmax(-1) / len(teachers)
        best = mean.topk(kept)
        mask = words.cpu().numpy()
        packed = np.zeros((2, *targets.shape, kept), np.uint16)  # [2, N, B, T, K]
        packed[0][mask] = best.indices.cpu().numpy()
        packed[1][mask] = best.values.half().cpu().numpy().view(np.uint16)
        real = mask[:, :, 0]  # [N, B], false for the padding of images with fewer references
        result[:, row : row + real.sum(), : targets.shape[2]] = packed[:, real]
        row += real.sum()
    return result
