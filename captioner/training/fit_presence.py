"""Fit word presence to the captions of the training images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW

from captioner.presence import LEAST, WordPresence

EPOCHS = 12
LEAST_STEPS = 1500  # however few the images
BATCH = 64
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01
DROPOUT = 0.5  # of the features: there are many, and few images


def fit_presence(
    presence: WordPresence,
    features: npt.NDArray[np.float16],
    references: Sequence[Sequence[Sequence[int]]],
) -> None:
    """Fit to grid features [N, L, C] and the encoded references of each image, in place.

    The logistic regression sees standardised features; its weights then take the scaling in.
    """
    device, words = presence.usual.device, len(presence.usual)
    means = _means(features).to(device)
    centre, scale = means.mean(0), means.std(0, correction=0) + 1e-6
    means = (means - centre) / scale
    usual = _usual(references, words).to(device)
    linear = torch.nn.Linear(means.shape[1], words, device=device)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = usual.logit()
    optimizer = AdamW(linear.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(max(EPOCHS, LEAST_STEPS * BATCH // len(means))):
        for batch in torch.split(torch.randperm(len(means)), BATCH):
            shares = word_shares([references[image] for image in batch.tolist()], words)
            logits = linear(functional.dropout(means[batch], DROPOUT))
            loss = functional.binary_cross_entropy_with_logits(logits, shares.to(device))
            optimizer.zero_grad()
            (loss * words).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        weight = linear.weight / scale
        presence.linear.weight.copy_(weight)
        presence.linear.bias.copy_(linear.bias - weight @ centre)
        presence.usual.copy_(usual.log().clamp(min=LEAST))


def word_shares(references: Sequence[Sequence[Sequence[int]]], words: int) -> Tensor:
    """The share of each image's references that say a word: float32 [N, V]."""
    shares = torch.zeros(len(references), words)
    for row, of_image in zip(shares, references, strict=True):
        for ids in of_image:
            row[list(set(ids))] += 1 / len(of_image)
    return shares


def _usual(references: Sequence[Sequence[Sequence[int]]], words: int) -> Tensor:
    """The mean of the images' word shares, float32 [V], a part of the images at a time."""
    total = torch.zeros(words)
    for start in range(0, len(references), BATCH):
        total += word_shares(references[start : start + BATCH], words).sum(0)
    return (total / len(references)).clamp(1e-5, 1 - 1e-5)


def _means(features: npt.NDArray[np.float16]) -> Tensor:
    """Of each grid, float32 [N, C]; a part at a time, as the features may be memory-mapped."""
    starts = range(0, len(features), BATCH)
    parts = [features[start : start + BATCH].mean(1, dtype=np.float32) for start in starts]
    return torch.from_numpy(np.concatenate(parts))
