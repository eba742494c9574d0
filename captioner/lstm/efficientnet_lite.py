"""EfficientNet-Lite0 without its classifier (torchvision has no Lite variant).

Source: Tan and Le 2019 (arXiv:1905.11946); the Lite variant drops squeeze-excitation and uses
ReLU6, as in TensorFlow's ``tpu/models/official/efficientnet/lite``. The published weights have
BatchNorm folded into the convolutions, and so does this module: it trains and runs in that form.
They were trained with TensorFlow's asymmetric padding. Here padding is symmetric, which avoids a
copy of the largest tensors; training soon makes up for the difference.
"""

import torch
from torch import Tensor, nn

# kernel, stride, expansion, channels, repeats
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # for which the weights were published


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution and its activation, under the key names of torchvision's blocks."""
    padding = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    return nn.Sequential(convolution, nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expansion, depthwise filter, projection; the input is added where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [_convolution(inputs, hidden, 1)]
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            *expand,
            _convolution(hidden, hidden, kernel, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class EfficientNetLite(nn.Module):
    """CNN from images [N, 3, H, W] (multiples of 32) to features [N, 1280, H / 32, W / 32]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, STEM_CHANNELS, 3, 2)]
        channels = STEM_CHANNELS
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for index in range(repeats):
                step = stride if index == 0 else 1
                layers.append(InvertedResidual(channels, outputs, kernel, step, expansion))
                channels = outputs
        layers.append(_convolution(channels, HEAD_CHANNELS, 1))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


def import_published_weights(model: EfficientNetLite, published: dict[str, Tensor]) -> None:
    """Copy weights under timm's ``tf_efficientnet_lite0`` key names, folding the BatchNorms.

    Convolutions and BatchNorms alternate in the published order, which is also this module's.
    Raises ValueError if a shape does not fit.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    kernels = [value for value in published.values() if value.ndim == 4]
    norms = [key.removesuffix(".running_var") for key in published if key.endswith(".running_var")]
    if not len(convolutions) == len(kernels) == len(norms):
        raise ValueError(f"expected {len(convolutions)} convolutions, found {len(kernels)}")
    for convolution, kernel, norm in zip(convolutions, kernels, norms, strict=True):
        weight, bias, mean, variance = (
            published[f"{norm}.{name}"].float()
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(variance + 1e-3)  # TensorFlow's BatchNorm epsilon
        if kernel.shape != convolution.weight.shape:
            raise ValueError(f"{norm}: expected {convolution.weight.shape}, found {kernel.shape}")
        with torch.no_grad():
            convolution.weight.copy_(kernel.float() * scale[:, None, None, None])
            convolution.bias.copy_(bias - mean * scale)  # type: ignore[union-attr]
