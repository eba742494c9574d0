"""Fit word presence to the captions of the training images."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import AdamW

from captioner.lstm.constraints import WordRules
from captioner.lstm.model import CaptionModel
from captioner.lstm.presence import LOG_FLOOR, WordPresence
from captioner.lstm.vocabulary import Vocabulary
from captioner.training.data.tensors import References, mean_features
from captioner.training.optimization import moving_average
from captioner.training.progress import bar, say

EPOCHS = 12
MIN_STEPS = 2000  # also for few images
BATCH = 64
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01
DROPOUT = 0.5  # of the features, which are many for the number of images
# The moving average looks back over this share of the steps: the last ones differ at random.
AVERAGED = 0.3
BLIND = 0.25  # share of the images of which only the detector's features are seen
MOST_WORDS = 1750  # whose presence is predicted; the rarer ones are in a handful of photographs
# Smaller differences between images are noise: bfloat16 resolves no smaller ones relative to the
# mean, float16 none at all. Weights that amplify them would be huge, and only fit the noise.
RELATIVE_NOISE, NOISE = 2**-8, 2**-14


def fit_to_images(
    model: CaptionModel, pixels: npt.NDArray[np.uint8], references: References, device: torch.device
) -> None:
    """Fit a model's word presence to training images [N, S, S, 3], in place.

    Each image is used as it is and augmented, because the encoder has overfitted the original.
    """
    say(f"fitting word presence to {len(pixels):,} images")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same images always give the same fit
        plain = mean_features(pixels, model.encoder, device)
        augmented = mean_features(pixels, model.encoder, device, references.mirrorable)
        means = torch.cat([plain, augmented])
        fit_presence(model.presence, means, references.ids * 2, apart=model.encoder.detected)


def leave_out_rare_words(
    model: CaptionModel, references: References, vocabulary: Vocabulary
) -> None:
    """Give a model a new word presence, to be fitted, that has weights for frequent words only.

    They are the content words that most of the images' references contain, MOST_WORDS at most. A
    model with no more content words, or whose presence leaves out words already, stays as it is.
    """
    presence, device = model.presence, model.presence.log_prior.device
    content = WordRules.of_vocabulary(vocabulary, torch.device("cpu")).content
    if presence.seen is not None or int(content.sum()) <= MOST_WORDS:
        return
    frequency = _prior(references.ids, len(vocabulary)).where(content, 0.0)
    seen = frequency.topk(MOST_WORDS).indices.sort().values
    channels = presence.linear.in_features
    model.presence = WordPresence(channels, len(vocabulary), MOST_WORDS).to(device)
    model.presence.rows.copy_(seen)
    model.config = replace(model.config, seen_words=MOST_WORDS)


def fit_presence(
    presence: WordPresence,
    means: Tensor,
    references: Sequence[Sequence[Sequence[int]]],
    *,
    apart: int = 0,
) -> None:
    """Fit word presence to mean features [N, C] and the encoded references of N images, in place.

    The regression runs on standardised features; the scaling is then folded into its weights. The
    last `apart` features are a detector's: of some images, only they are seen, because those of a
    CNN that was trained on the same images know too much about them.
    """
    device, words = presence.log_prior.device, len(presence.log_prior)
    centre = means.mean(0)
    noise = (RELATIVE_NOISE * centre.abs()).clamp(min=NOISE)
    scale = torch.maximum(means.std(0, correction=0), noise)
    inputs = ((means - centre) / scale).to(device)
    prior = _prior(references, words).to(device)
    linear = _regress(inputs, references, prior, presence.rows.cpu(), apart)
    with torch.no_grad():
        weight = linear.weight / scale.to(device)
        presence.linear.weight.copy_(weight)
        presence.linear.bias.copy_(linear.bias - weight @ centre.to(device))
        presence.log_prior.copy_(prior.log())


def _regress(
    inputs: Tensor,
    references: Sequence[Sequence[Sequence[int]]],
    prior: Tensor,
    rows: Tensor,
    apart: int,
) -> torch.nn.Linear:
    """Fit a layer from standardised inputs [N, C] to the logits of the shares of words `rows`."""
    words = len(prior)
    linear = torch.nn.Linear(inputs.shape[1], len(rows), device=inputs.device)
    torch.nn.init.zeros_(linear.weight)
    linear.bias.data = prior[rows.to(prior.device)].logit()
    optimizer = AdamW(linear.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = math.ceil(len(inputs) / BATCH)  # in an epoch
    epochs = max(EPOCHS, math.ceil(MIN_STEPS / steps))
    averaging = moving_average(linear, 1 - 1 / (AVERAGED * epochs * steps))
    for _ in bar(range(epochs), "word presence", " epochs"):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            shares = word_shares([references[image] for image in batch.tolist()], words)[:, rows]
            seen = functional.dropout(inputs[batch], DROPOUT)
            if apart:
                seen[torch.rand(len(batch)) < BLIND, :-apart] = 0
            logits = linear(seen)
            loss = functional.binary_cross_entropy_with_logits(logits, shares.to(inputs.device))
            optimizer.zero_grad()
            # Averaged over all words, gradients would be as small as AdamW's epsilon.
            (loss * len(rows)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            averaging.update_parameters(linear)
    return cast(torch.nn.Linear, averaging.module)


def word_shares(references: Sequence[Sequence[Sequence[int]]], words: int) -> Tensor:
    """Return the share of each image's references that contain a word: float32 [N, V]."""
    shares = np.zeros((len(references), words), np.float32)  # tensors take ten times as long
    for row, of_image in zip(shares, references, strict=True):
        for ids in of_image:
            row[list(set(ids))] += 1 / len(of_image)
    return torch.from_numpy(shares)


def _prior(references: Sequence[Sequence[Sequence[int]]], words: int) -> Tensor:
    """Return the mean of the images' word shares, float32 [V], computed batch by batch."""
    total = torch.zeros(words)
    for start in range(0, len(references), BATCH):
        total += word_shares(references[start : start + BATCH], words).sum(0)
    return (total / len(references)).clamp(math.exp(LOG_FLOOR), 1 - math.exp(LOG_FLOOR))
