"""Pixels -> grid features, by a CNN and a detector beside it."""

from http.client import HTTPException

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captioner.errors import CaptionerError
from captioner.lstm.efficientnet_lite import EfficientNetLite
from captioner.lstm.yolox import CHANNELS, YoloxNano

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """A CNN: uint8 RGB pixels [N, S, S, 3] -> grid features [N, L, C], one per cell.

    `name` is a torchvision classification CNN or ``efficientnet_lite0``, optionally followed by a
    slash and the layer whose output is the grid, as in ``resnet50/layer3``. `weights` is None
    (random) or any value that torchvision's `get_model` takes, such as "DEFAULT".

    With the detector ``yolox_nano``, its channels follow those of the CNN; it sees the images in
    squares of `detector_size` pixels, or as they are. In training, `blind` is the share of images
    of which only the detector's channels are seen, so that the decoder learns to read them: of
    training images, a CNN that is trained, too, soon knows the captions by heart.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        detector: str | None = None,
        detector_size: int | None = None,
    ) -> None:
        super().__init__()
        self.trunk = build_trunk(name, weights).to(memory_format=torch.channels_last)
        self.detector = build_detector(detector)
        self.detector_size = detector_size
        self.blind = 0.0
        self.register_buffer("mean", 255 * torch.tensor(mean), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        grid = self.trunk(self.normalize(pixels))  # [N, C, S/32, S/32]
        if self.detector is not None:
            if self.blind and torch.is_grad_enabled():
                grid = grid * (torch.rand(len(grid), 1, 1, 1, device=grid.device) >= self.blind)
            grid = torch.cat([grid, self.things(pixels, grid.shape[2])], 1)
        return grid.flatten(2).transpose(1, 2)  # [N, L, C]

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return the input of the CNN for pixels: [N, 3, S, S] in channels_last, as its weights."""
        width = pixels.shape[2]
        rows = pixels.flatten(2).float()  # [N, S, 3S]: three columns would be slow
        rows = (rows - self.mean.repeat(width)).div_(self.std.repeat(width))
        images = rows.view(pixels.shape).permute(0, 3, 1, 2)
        return images.to(next(self.trunk.parameters(), images).dtype)

    @property
    def detected(self) -> int:
        """The number of the grid's channels, the last ones, that are the detector's."""
        return 0 if self.detector is None else CHANNELS

    @torch.no_grad()
    def things(self, pixels: Tensor, cells: int) -> Tensor:
        """Return the channels of the detector: [N, D, cells, cells] for pixels [N, S, S, 3]."""
        assert self.detector is not None
        images = _resized(pixels.permute(0, 3, 1, 2), self.detector_size or pixels.shape[1])
        things: Tensor = self.detector(images.float())
        return things if things.shape[2] == cells else interpolate(things, (cells, cells))

    @torch.no_grad()
    def channels(self) -> int:
        """Return C, found by running one blank image."""
        training, device = self.training, self.mean.device
        self.eval()
        channels = self(torch.zeros(1, 224, 224, 3, dtype=torch.uint8, device=device)).shape[2]
        self.train(training)
        return channels


def _resized(images: Tensor, size: int) -> Tensor:
    """Return images [N, 3, S, S] in squares of `size` pixels."""
    if images.shape[2] == size:
        return images
    if images.device.type != "cpu":  # where bytes take a tenth of the time; only it takes bytes
        images = images.float()
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def build_trunk(name: str, weights: str | None = None) -> nn.Module:
    """Build the CNN `name` without pooling and classifier, or up to the layer after the slash.

    Raises CaptionerError if torchvision has no such CNN, or the CNN no such layer or weights.
    """
    if name == "efficientnet_lite0":
        return EfficientNetLite()
    name, _, layer = name.partition("/")
    trunk = _torchvision_trunk(name, weights)
    if layer:
        trunk = up_to(trunk, layer)
    try:
        with torch.no_grad():
            grid = trunk.eval()(torch.zeros(1, 3, 224, 224))
    except (RuntimeError, AssertionError) as error:
        raise CaptionerError(f"encoder {name!r} is not a CNN with a feature grid") from error
    if grid.ndim != 4 or grid.shape[2] != grid.shape[3] or grid.shape[2] == 1:
        raise CaptionerError(f"encoder {name!r} is not a CNN with a feature grid")
    return trunk.train()


def build_detector(name: str | None) -> YoloxNano | None:
    """Build a detector; CaptionerError for any other name than ``yolox_nano``."""
    if name is None:
        return None
    if name != "yolox_nano":
        raise CaptionerError(f"unknown detector {name!r}: the only one is yolox_nano")
    return YoloxNano().to(memory_format=torch.channels_last)


def _torchvision_trunk(name: str, weights: str | None) -> nn.Sequential:
    from torchvision import models  # here, because it takes more than a second

    if name not in models.list_models(module=models):
        raise CaptionerError(f"unknown encoder {name!r}: choose a torchvision classification CNN")
    inception = name in ("googlenet", "inception_v3") and not weights
    options = {"aux_logits": False, "init_weights": True} if inception else {}
    try:
        return trunk_of(models.get_model(name, weights=weights, **options))
    except KeyError as error:
        raise CaptionerError(f"{weights!r} is neither a file nor weights of {name}") from error
    except (OSError, HTTPException, RuntimeError) as error:
        if weights is None:
            raise
        url = models.get_model_weights(name)[weights.rpartition(".")[2]].url
        reason = getattr(error, "reason", error)  # of urllib, without its brackets
        raise CaptionerError(
            f"cannot get the encoder weights {weights!r} of {name} ({reason}): download {url} on "
            "another machine, and give that file instead"
        ) from error


def trunk_of(model: nn.Module) -> nn.Sequential:
    """Return the children of a torchvision CNN that precede its pooling and classifier.

    The Inception family's auxiliary classifiers, which only serve training from scratch, are left
    out. Its published weights expect `mean` and `std` of 0.5: torchvision rescales outside of them.
    """
    trunk = nn.Sequential()
    for key, child in model.named_children():
        if key in ("avgpool", "classifier", "fc", "heads", "head"):
            break
        if not key.lower().startswith("aux"):
            trunk.add_module(key, child)
    return trunk


def up_to(trunk: nn.Module, layer: str) -> nn.Sequential:
    """Return a trunk up to and including `layer`, a path such as ``features.7.0``.

    Raises CaptionerError if there is no such layer, or if it is not part of a plain sequence.
    """
    first, _, rest = layer.partition(".")
    names = [name for name, _ in trunk.named_children()]
    if not isinstance(trunk, nn.Sequential) or first not in names:
        raise CaptionerError(f"no layer {first!r} to end with: choose one of {', '.join(names)}")
    beginning = nn.Sequential()
    for name, child in trunk.named_children():
        last = name == first
        beginning.add_module(name, up_to(child, rest) if last and rest else child)
        if last:
            break
    return beginning
