"""YOLOX-Nano without its boxes: what things are in an image, and where, as channels of a grid.

Source: Ge et al. 2021 (arXiv:2107.08430), a detector of the 80 kinds of things in MS-COCO, of 0.9
million parameters. It was shown far more photographs than a captioning model is usually trained on,
so it knows things that the captions of the training images hardly mention. As in its published
weights, BatchNorm is folded into the convolutions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS = 80  # of things
SCALES = (64, 128, 256)  # channels of the features at an eighth, 1/16 and 1/32 of the image's side
HEAD = 64
HEAD_SCALE = 0.2  # makes the features of the heads as large as the others
CHANNELS = sum(SCALES) + len(SCALES) * HEAD + 2 * KINDS
# These layers look for small differences between neighbours, which bfloat16 loses; the others have
# weights that it can hold.
EXACT = ("stem", "quarter", "eighth")
LOG_FLOOR = -7.0  # smaller log-probabilities of a thing are raised to it


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = (kernel - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    return nn.Sequential(convolution, nn.SiLU())


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    depthwise = _convolution(inputs, inputs, 3, stride, groups=inputs)
    return nn.Sequential(depthwise, _convolution(inputs, outputs))


class Bottleneck(nn.Module):
    """Two convolutions; the input is added to their output if `residual`."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        squeeze = _convolution(channels, channels)
        self.layers = nn.Sequential(squeeze, _separable(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class PartialStage(nn.Module):
    """A stage whose bottlenecks see half of the channels (Wang et al. 2019, arXiv:1911.11929)."""

    def __init__(self, inputs: int, outputs: int, repeats: int = 1, residual: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.through = _convolution(inputs, half)
        self.past = _convolution(inputs, half)
        self.bottlenecks = nn.Sequential(*(Bottleneck(half, residual) for _ in range(repeats)))
        self.join = _convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.bottlenecks(self.through(x)), self.past(x)], 1))


class PyramidPooling(nn.Module):
    """The greatest values within 5, 9 and 13 cells (He et al. 2014, arXiv:1406.4729)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = _convolution(channels, channels // 2)
        self.join = _convolution(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.squeeze(x)]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        return self.join(torch.cat(pooled, 1))


class Head(nn.Module):
    """What things are at each place of one scale, and whether there is a thing at all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = _convolution(channels, HEAD)
        self.kind_features = nn.Sequential(_separable(HEAD, HEAD), _separable(HEAD, HEAD))
        self.kind = nn.Conv2d(HEAD, KINDS, 1)
        self.thing_features = nn.Sequential(_separable(HEAD, HEAD), _separable(HEAD, HEAD))
        self.thing = nn.Conv2d(HEAD, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [N, 64, H, W], and the log-probability of each kind [N, 80, H, W]."""
        x = self.stem(x)
        features = self.kind_features(x)
        thing = functional.logsigmoid(self.thing(self.thing_features(x)).float())
        return features, functional.logsigmoid(self.kind(features).float()) + thing


class YoloxNano(nn.Module):
    """A frozen CNN from RGB images [N, 3, H, W], 0 to 255, to a grid [N, 800, H / 32, W / 32].

    The layers named in `EXACT` may have weights of another type than the rest.

    The channels: features of the three scales, features of their heads, the kinds of things in each
    cell from 0 (probability of at most e^-7) to 1, and the kinds in the whole image, the same in
    each cell. H and W are multiples of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        small, medium, large = SCALES
        self.stem = _convolution(3, 16, 6, 2)
        self.quarter = nn.Sequential(_separable(16, 32, 2), PartialStage(32, 32, 1, True))
        self.eighth = nn.Sequential(_separable(32, small, 2), PartialStage(small, small, 3, True))
        self.sixteenth = nn.Sequential(
            _separable(small, medium, 2), PartialStage(medium, medium, 3, True)
        )
        self.last = nn.Sequential(
            _separable(medium, large, 2), PyramidPooling(large), PartialStage(large, large)
        )
        self.reduce_last = _convolution(large, medium)
        self.up_sixteenth = PartialStage(2 * medium, medium)
        self.reduce_sixteenth = _convolution(medium, small)
        self.up_eighth = PartialStage(2 * small, small)
        self.down_eighth = _separable(small, small, 2)
        self.down_sixteenth = PartialStage(medium, medium)
        self.shrink_sixteenth = _separable(medium, medium, 2)
        self.down_last = PartialStage(large, large)
        self.heads = nn.ModuleList(Head(channels) for channels in SCALES)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        scales = self._pyramid(x)
        cells = (scales[-1].shape[2], scales[-1].shape[3])
        features, kinds = list(scales), []
        for head, scale in zip(self.heads, scales, strict=True):
            of_head, of_kinds = head(scale)
            features.append(of_head * HEAD_SCALE)
            kinds.append(functional.adaptive_max_pool2d(of_kinds, cells))
        of_cell = torch.stack(kinds).amax(0).clamp(min=LOG_FLOOR) / -LOG_FLOOR + 1
        of_image = of_cell.amax((2, 3), keepdim=True).expand_as(of_cell)
        means = [functional.adaptive_avg_pool2d(each, cells) for each in features]
        return torch.cat([*means, of_cell.to(means[0].dtype), of_image.to(means[0].dtype)], 1)

    def _pyramid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of an eighth, 1/16 and 1/32 (Liu et al. 2018, arXiv:1803.01534)."""
        with torch.autocast(x.device.type, enabled=False):
            exact = x.to(next(self.stem.parameters()).dtype)
            eighth = self.eighth(self.quarter(self.stem(exact)))
        eighth = eighth.to(next(self.sixteenth.parameters()).dtype)
        sixteenth = self.sixteenth(eighth)
        last = self.reduce_last(self.last(sixteenth))
        middle = self.reduce_sixteenth(self.up_sixteenth(_beside(_enlarged(last), sixteenth)))
        small = self.up_eighth(_beside(_enlarged(middle), eighth))
        medium = self.down_sixteenth(_beside(self.down_eighth(small), middle))
        large = self.down_last(_beside(self.shrink_sixteenth(medium), last))
        return small, medium, large


def _enlarged(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0)


def _beside(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second], 1)


def import_published_weights(model: YoloxNano, published: dict[str, Tensor]) -> None:
    """Copy weights of YOLOX-Nano whose BatchNorms are folded; those of boxes are left out.

    They come in the order of this module, the heads as their stem, their two branches and the
    predictions of each. The published model takes BGR images and moves each square of four pixels
    into channels first; here, both are part of the first convolution. All but the EXACT layers are
    rounded to bfloat16, as a checkpoint holds them, so that a decoder learns to read just these.
    Raises ValueError if a shape does not fit.
    """
    tensors = [value.float() for value in published.values() if not _is_of_boxes(value)]
    parameters = dict(model.named_parameters())
    if len(tensors) != len(parameters):
        raise ValueError(f"expected {len(parameters)} tensors, found {len(tensors)}")
    with torch.no_grad():
        tensors[0] = _first_kernel(tensors[0])
        for (name, parameter), tensor in zip(parameters.items(), tensors, strict=True):
            if parameter.shape != tensor.shape:
                raise ValueError(f"{name}: expected {parameter.shape}, found {tensor.shape}")
            parameter.copy_(tensor if is_exact(name) else tensor.bfloat16())


def is_exact(name: str) -> bool:
    """Return whether a parameter of a YoloxNano is one of its EXACT layers."""
    return name.partition(".")[0] in EXACT


def _is_of_boxes(value: Tensor) -> bool:
    return len(value) == 4


def _first_kernel(kernel: Tensor) -> Tensor:
    """Return a kernel [16, 3, 6, 6] for RGB images from [16, 12, 3, 3] for four BGR pixels."""
    outputs = len(kernel)
    # The four pixels are ordered column by column.
    parts = kernel.view(outputs, 2, 2, 3, 3, 3)  # [outputs, dx, dy, channel, y, x]
    return parts.permute(0, 3, 4, 2, 5, 1).reshape(outputs, 3, 6, 6).flip(1)
