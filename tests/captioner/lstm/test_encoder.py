"""Grid features of torchvision's classification CNNs, and of EfficientNet-Lite0."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from captioner.errors import CaptionerError
from captioner.lstm.efficientnet_lite import EfficientNetLite, import_published_weights
from captioner.lstm.encoder import Encoder, build_trunk, trunk_of

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "vgg11",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_trunk_computes_the_features_before_pooling(name: str) -> None:
    inception = name in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if inception else {}
    model = get_model(name, weights=None, **options).eval()
    trunk = trunk_of(model)
    seen: list[Tensor] = []
    trunk[-1].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        model(images)
        grid = trunk(images)
    assert grid.ndim == 4 and grid.shape[2] > 1
    torch.testing.assert_close(grid, seen[0])


def test_an_encoder_gives_a_vector_for_each_cell_of_the_grid() -> None:
    encoder = Encoder("resnet18").eval()
    pixels = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = encoder(pixels)
    assert features.shape == (2, 9, 512)
    assert encoder.channels() == 512


def test_default_weights_are_those_that_torchvision_publishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = get_model("squeezenet1_1", weights=None).state_dict()
    url = get_model_weights("squeezenet1_1")["DEFAULT"].url
    downloaded = tmp_path / "hub" / "checkpoints" / Path(url).name
    downloaded.parent.mkdir(parents=True)
    torch.save(published, downloaded)
    for key, value in build_trunk("squeezenet1_1", "DEFAULT").state_dict().items():
        assert torch.equal(value, published[key])


def test_pixels_are_normalised_channel_by_channel() -> None:
    encoder = Encoder("resnet18", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).eval()
    encoder.trunk = nn.Identity()
    pixels = torch.tensor([51, 102, 204], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = [(0.2 - 0.1) / 0.4, (0.4 - 0.2) / 0.5, (0.8 - 0.3) / 0.6]
    torch.testing.assert_close(encoder(pixels)[0, 0], torch.tensor(expected))


@pytest.mark.parametrize("name", ["vit_b_16", "resnet19", "fcn_resnet50"])
def test_the_error_for_anything_but_a_classification_cnn_names_it(name: str) -> None:
    with pytest.raises(CaptionerError, match=name):
        build_trunk(name)


def published_weights(model: EfficientNetLite) -> dict[str, Tensor]:
    """Random weights in the published layout: convolutions without bias, BatchNorms apart."""
    weights: dict[str, Tensor] = {}
    for index, module in enumerate(m for m in model.modules() if isinstance(m, nn.Conv2d)):
        channels = module.out_channels
        weights[f"{index}.conv.weight"] = torch.randn_like(module.weight) / 10
        weights[f"{index}.bn.weight"] = torch.rand(channels) + 0.5
        weights[f"{index}.bn.bias"] = torch.randn(channels)
        weights[f"{index}.bn.running_mean"] = torch.randn(channels)
        weights[f"{index}.bn.running_var"] = torch.rand(channels) + 0.5
    return weights


def test_published_batch_norm_is_folded_into_the_convolutions() -> None:
    model = EfficientNetLite()
    weights = published_weights(model)
    import_published_weights(model, weights)
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    norm = nn.BatchNorm2d(last.out_channels, eps=1e-3).eval()
    key = f"{sum(isinstance(m, nn.Conv2d) for m in model.modules()) - 1}"
    norm.load_state_dict(
        {name: weights[f"{key}.bn.{name}"] for name in norm.state_dict() if "num" not in name},
        strict=False,
    )
    inputs = torch.randn(1, last.in_channels, 7, 7)
    with torch.no_grad():
        expected = norm(nn.functional.conv2d(inputs, weights[f"{key}.conv.weight"]))
        torch.testing.assert_close(last(inputs), expected, rtol=1e-3, atol=1e-4)


def test_published_weights_of_another_model_are_refused() -> None:
    model = EfficientNetLite()
    weights = published_weights(model)
    del weights["3.conv.weight"]
    with pytest.raises(ValueError, match="convolutions"):
        import_published_weights(model, weights)


def test_an_encoder_may_end_at_a_layer() -> None:
    assert Encoder("resnet18/layer3").channels() == 256
    whole, part = build_trunk("efficientnet_b0"), build_trunk("efficientnet_b0/features.5.1")
    part.load_state_dict(whole.state_dict(), strict=False)
    assert set(part.state_dict()) < set(whole.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stages = whole.eval().features  # type: ignore[union-attr]
        expected = stages[5][:2](stages[:5](images))  # type: ignore[index, operator]
        torch.testing.assert_close(part.eval()(images), expected)


def test_the_error_for_an_unknown_layer_lists_the_known_ones() -> None:
    with pytest.raises(CaptionerError, match=r"layer9.*layer1"):
        build_trunk("resnet18/layer9")


def test_the_error_for_weights_that_cannot_be_downloaded_names_them_the_reason_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")  # where nobody listens
    expected = (
        r"^cannot get the encoder weights 'DEFAULT' of resnet18 \(.*refused\): "
        r"download https://\S+/resnet18-\w+\.pth on another machine, and give that file instead$"
    )
    with pytest.raises(CaptionerError, match=expected):
        Encoder("resnet18", weights="DEFAULT")
