"""YoloxNano gives what the published network gives, from its published weights."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captioner.lstm.encoder import Encoder
from captioner.lstm.yolox import (
    CHANNELS,
    EXACT,
    HEAD,
    HEAD_SCALE,
    KINDS,
    LOG_FLOOR,
    SCALES,
    YoloxNano,
    import_published_weights,
)

Weights = dict[str, Tensor]
Kernels = list[tuple[str, tuple[int, ...]]]


def separable(name: str, inputs: int, outputs: int) -> Kernels:
    return [(f"{name}.d", (inputs, 1, 3, 3)), (f"{name}.p", (outputs, inputs, 1, 1))]


def stage(name: str, inputs: int, outputs: int, repeats: int) -> Kernels:
    half = outputs // 2
    kernels: Kernels = [(f"{name}.a", (half, inputs, 1, 1)), (f"{name}.b", (half, inputs, 1, 1))]
    for index in range(repeats):
        kernels.append((f"{name}.m.{index}.a", (half, half, 1, 1)))
        kernels += separable(f"{name}.m.{index}.b", half, half)
    return [*kernels, (f"{name}.c", (outputs, outputs, 1, 1))]


def head(name: str, channels: int) -> Kernels:
    branches: Kernels = []
    for branch, predicted in (("c", ((KINDS, "cp"),)), ("r", ((4, "rp"), (1, "op")))):
        for index in (0, 1):
            branches += separable(f"{name}.{branch}{index}", HEAD, HEAD)
        branches += [(f"{name}.{key}", (outputs, HEAD, 1, 1)) for outputs, key in predicted]
    return [(f"{name}.stem", (HEAD, channels, 1, 1)), *branches]


def published_kernels() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the published kernels, in their order."""
    yield "stem", (16, 12, 3, 3)
    yield from (*separable("d2", 16, 32), *stage("s2", 32, 32, 1))
    yield from (*separable("d3", 32, 64), *stage("s3", 64, 64, 3))
    yield from (*separable("d4", 64, 128), *stage("s4", 128, 128, 3))
    yield from (*separable("d5", 128, 256), ("pool.a", (128, 256, 1, 1)))
    yield from (("pool.b", (256, 512, 1, 1)), *stage("s5", 256, 256, 1))
    yield from (("last", (128, 256, 1, 1)), *stage("p4", 256, 128, 1))
    yield from (("middle", (64, 128, 1, 1)), *stage("p3", 128, 64, 1))
    yield from (*separable("down3", 64, 64), *stage("n3", 128, 128, 1))
    yield from (*separable("down4", 128, 128), *stage("n4", 256, 256, 1))
    for index, channels in enumerate(SCALES):
        yield from head(f"h{index}", channels)


@pytest.fixture
def published() -> Weights:
    torch.manual_seed(0)
    weights = {}
    for name, shape in published_kernels():
        # Of a size that keeps the activations about as large as they were, and exact in bfloat16.
        scale = 1.6 / (shape[1] * shape[2] * shape[3]) ** 0.5
        weights[f"{name}.weight"] = (scale * torch.randn(shape)).bfloat16().float()
        weights[f"{name}.bias"] = (0.1 * torch.randn(shape[0])).bfloat16().float()
    return weights


class Published:
    """The network as its authors describe it: BGR images, and squares of pixels as channels."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def plain(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        groups = x.shape[1] // kernel.shape[1]
        return functional.conv2d(x, kernel, bias, stride, kernel.shape[2] // 2, 1, groups)

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        return functional.silu(self.plain(x, name, stride))

    def separable(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        return self.conv(self.conv(x, f"{name}.d", stride), f"{name}.p")

    def stage(self, x: Tensor, name: str, repeats: int, residual: bool = False) -> Tensor:
        through = self.conv(x, f"{name}.a")
        for index in range(repeats):
            y = self.conv(through, f"{name}.m.{index}.a")
            y = self.separable(y, f"{name}.m.{index}.b")
            through = through + y if residual else y
        return self.conv(torch.cat([through, self.conv(x, f"{name}.b")], 1), f"{name}.c")

    def pyramid(self, rgb: Tensor) -> list[Tensor]:
        x = rgb.flip(1)
        corners = [x[..., dy::2, dx::2] for dx in (0, 1) for dy in (0, 1)]
        x = self.conv(torch.cat(corners, 1), "stem")
        x = self.stage(self.separable(x, "d2", 2), "s2", 1, True)
        eighth = self.stage(self.separable(x, "d3", 2), "s3", 3, True)
        sixteenth = self.stage(self.separable(eighth, "d4", 2), "s4", 3, True)
        x = self.conv(self.separable(sixteenth, "d5", 2), "pool.a")
        pools = [functional.max_pool2d(x, size, 1, size // 2) for size in (5, 9, 13)]
        last = self.stage(self.conv(torch.cat([x, *pools], 1), "pool.b"), "s5", 1)
        last = self.conv(last, "last")
        up = nn.Upsample(scale_factor=2)
        middle = self.conv(self.stage(torch.cat([up(last), sixteenth], 1), "p4", 1), "middle")
        small = self.stage(torch.cat([up(middle), eighth], 1), "p3", 1)
        medium = torch.cat([self.separable(small, "down3", 2), middle], 1)
        medium = self.stage(medium, "n3", 1)
        large = torch.cat([self.separable(medium, "down4", 2), last], 1)
        return [small, medium, self.stage(large, "n4", 1)]

    def head(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        x = self.conv(x, f"{name}.stem")
        kinds = self.separable(self.separable(x, f"{name}.c0"), f"{name}.c1")
        things = self.separable(self.separable(x, f"{name}.r0"), f"{name}.r1")
        thing = self.plain(things, f"{name}.op").sigmoid()
        return kinds, self.plain(kinds, f"{name}.cp").sigmoid() * thing


@torch.inference_mode()
def test_the_grid_has_what_the_published_network_sees(published: Weights) -> None:
    model = YoloxNano().eval()
    import_published_weights(model, published)
    reference, images = Published(published), 255 * torch.rand(2, 3, 96, 64)
    grid = model(images)
    scales = reference.pyramid(images)
    heads = [reference.head(scale, f"h{index}") for index, scale in enumerate(scales)]
    assert grid.shape == (2, CHANNELS, 3, 2)

    pool = nn.AdaptiveAvgPool2d((3, 2))
    features = [pool(scale) for scale in scales]
    features += [pool(of_head) * HEAD_SCALE for of_head, _ in heads]
    expected = torch.cat(features, 1)
    torch.testing.assert_close(grid[:, : -2 * KINDS], expected, rtol=0.01, atol=0.01)

    likeliest = torch.stack([functional.adaptive_max_pool2d(each, (3, 2)) for _, each in heads])
    of_cell = (1 - likeliest.amax(0).log() / LOG_FLOOR).clamp(min=0)
    of_image = of_cell.amax((2, 3), keepdim=True).expand_as(of_cell)
    kinds = torch.cat([of_cell, of_image], 1)
    torch.testing.assert_close(grid[:, -2 * KINDS :], kinds, rtol=1e-3, atol=1e-3)


def test_weights_of_another_network_are_refused(published: Weights) -> None:
    with pytest.raises(ValueError, match="expected 220 tensors, found 219"):
        import_published_weights(YoloxNano(), dict(list(published.items())[:-1]))
    published["d2.d.weight"] = torch.zeros(16, 1, 5, 5)
    with pytest.raises(ValueError, match=r"quarter\.0\.0\.0\.weight: expected"):
        import_published_weights(YoloxNano(), published)


def test_all_but_the_exact_layers_can_be_held_in_bfloat16(published: Weights) -> None:
    fine = {name: value + 1e-4 for name, value in published.items()}
    model = YoloxNano()
    import_published_weights(model, fine)
    for name, value in model.named_parameters():
        assert torch.equal(value, value.bfloat16()) != (name.partition(".")[0] in EXACT), name


def test_blind_images_show_only_the_detector_and_only_in_training() -> None:
    torch.manual_seed(0)
    encoder = Encoder("efficientnet_lite0", detector="yolox_nano")
    encoder.blind = 0.5
    pixels = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    seen = encoder(pixels).detach()[..., :-CHANNELS].abs().sum((1, 2)) > 0
    assert 0 < seen.sum() < len(pixels)
    with torch.no_grad():
        assert (encoder(pixels)[..., :-CHANNELS].abs().sum((1, 2)) > 0).all()


@torch.inference_mode()
def test_a_smaller_image_for_the_detector_alone_gives_its_grid_more_cells() -> None:
    encoder = Encoder("efficientnet_lite0", detector="yolox_nano", detector_size=64).eval()
    small = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    doubled = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert encoder.detector is not None
    expected = encoder.detector(small.permute(0, 3, 1, 2).float())  # [2, D, 2, 2]
    things = encoder(doubled)[..., -CHANNELS:].unflatten(1, (4, 4))
    for y, x in ((0, 0), (1, 3), (3, 2)):
        near = expected[:, :, y // 2, x // 2]
        torch.testing.assert_close(things[:, y, x], near, atol=0.05, rtol=0.05)
