"""Fit word presence to the captions of the training images."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW

from captioner.model import CaptionModel
from captioner.presence import LEAST, WordPresence
from captioner.training.inputs import References, mean_features

EPOCHS = 12
LEAST_STEPS = 1500  # however few the images
BATCH = 64
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01
DROPOUT = 0.5  # of the features: there are many, and few images


def fit_to_images(
    model: CaptionModel,
    pixels: npt.NDArray[np.uint8],
    references: References,
    device: torch.device,
) -> None:
    """Fit a model's word presence to training images [N, S, S, 3], in place.

    Each is seen as it is and augmented: the encoder knows the training images themselves too well.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # whatever came before, the same images give the same fit
        plain = mean_features(pixels, model.encoder, device)
        varied = mean_features(pixels, model.encoder, device, references.mirrorable)
        fit_presence(model.presence, torch.cat([plain, varied]), references.ids * 2)


def fit_presence(
    presence: WordPresence, means: Tensor, references: Sequence[Sequence[Sequence[int]]]
) -> None:
    """Fit to the mean features [N, C] and the encoded references of each image, in place.

    The logistic regression sees standardised features; its weights then take the scaling in.
    """
    device, words = presence.usual.device, len(presence.usual)
    centre, scale = means.mean(0), means.std(0, correction=0) + 1e-6
    inputs = ((means - centre) / scale).to(device)
    usual = _usual(references, words).to(device)
    linear = _regress(inputs, references, usual)
    with torch.no_grad():
        weight = linear.weight / scale.to(device)
        presence.linear.weight.copy_(weight)
        presence.linear.bias.copy_(linear.bias - weight @ centre.to(device))
        presence.usual.copy_(usual.log())


def _regress(
    inputs: Tensor, references: Sequence[Sequence[Sequence[int]]], usual: Tensor
) -> torch.nn.Linear:
    """The logits of the word shares from standardised inputs [N, C]."""
    words = len(usual)
    linear = torch.nn.Linear(inputs.shape[1], words, device=inputs.device)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = usual.logit()
    optimizer = AdamW(linear.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = math.ceil(len(inputs) / BATCH)  # of an epoch
    for _ in range(max(EPOCHS, math.ceil(LEAST_STEPS / steps))):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            shares = word_shares([references[image] for image in batch.tolist()], words)
            logits = linear(functional.dropout(inputs[batch], DROPOUT))
            loss = functional.binary_cross_entropy_with_logits(logits, shares.to(inputs.device))
            optimizer.zero_grad()
            # The mean over so many words alone would have gradients of the size of AdamW's epsilon.
            (loss * words).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return linear


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
    return (total / len(references)).clamp(math.exp(LEAST), 1 - math.exp(LEAST))
