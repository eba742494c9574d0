"""Captioning in whole numbers of 8 bits: close to float32, the same in every batch."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from captioner.captioner import Captioner
from captioner.errors import CaptionerError, CheckpointError
from captioner.loading import identify
from captioner.lstm.checkpoint import load_checkpoint, save_checkpoint
from captioner.lstm.inference import int8
from captioner.lstm.inference.fused import FusedEncoder
from captioner.lstm.inference.int8 import Int8Linear, int8_blocks
from captioner.lstm.int8 import PIXELS
from captioner.model_directory import BUNDLED, INT8, WEIGHTS, hash_of
from captioner.options import CaptionerOptions
from captioner.training.rounding import rounded_block
from tests.support.int8 import needs_int8
from tests.support.photographs import photograph


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    pictures = [Image.open(io.BytesIO(photograph(seed))).resize((256, 256)) for seed in range(9)]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED / "flickr8k", tmp_path / "copy"))


@needs_int8
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_linear_layers_are_nearly_exact_and_each_row_by_itself(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(512, 300, bias=bias)
    quick = Int8Linear(layer.weight, layer.bias)
    rows = torch.randn(4, 24, 512) * torch.tensor([0.01, 1, 100, 0]).view(4, 1, 1)
    found, expected = quick(rows), layer(rows)
    assert found.dtype == torch.float32
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 0.02 * other.norm() + 1e-6
    assert torch.equal(quick(rows[1, 5]), found[1, 5])
    assert torch.equal(quick(rows[:, :1]), found[:, :1])


@needs_int8
@torch.inference_mode()
def test_each_block_computes_what_it_was_trained_to(pixels: Tensor) -> None:
    checkpoint = load_checkpoint("flickr8k")
    trunk, weights = checkpoint.model.encoder.trunk, checkpoint.int8_for("int8")
    assert weights is not None
    for name, layer in trunk.named_modules():
        if isinstance(layer, nn.Conv2d):
            tensors = weights.tensors
            layer.weight.copy_(
                tensors[f"{name}.weight"] * tensors[f"{name}.steps"].view(-1, 1, 1, 1)
            )
            layer.bias.copy_(tensors[f"{name}.bias"])
    x, read = pixels[:2].permute(0, 3, 1, 2), PIXELS
    for (name, block), quick in zip(
        trunk.features.named_children(), int8_blocks(trunk, weights), strict=True
    ):
        are_values = x.dtype == torch.float32
        values = x.clone() if are_values else (x.float() - read.zero) * read.step
        rounded = (values / read.step).round().clamp(-read.zero, 255 - read.zero) * read.step
        expected = rounded_block(rounded, block, values)
        x, read = quick(x), weights.output_scale(f"features.{name}")
        found = x if x.dtype == torch.float32 else (x.float() - read.zero) * read.step
        differences = (found - expected).abs() / read.step
        step = 0.1 if x.dtype == torch.float32 else 0.51
        assert (differences > step).float().mean() < 0.005, name


@needs_int8
@torch.inference_mode()
def test_the_grid_is_nearly_that_of_float32_and_the_same_in_any_batch(pixels: Tensor) -> None:
    checkpoint = load_checkpoint("flickr8k")
    encoder, weights = checkpoint.model.encoder, checkpoint.int8_for("int8")
    expected, fused = encoder(pixels), FusedEncoder(encoder, torch.float32, weights)
    found = fused(pixels)
    assert 0 < (found - expected).norm() < 0.2 * expected.norm()
    for images in (1, 3, 8):
        assert torch.equal(fused(pixels[:images])[..., :1280], found[:images, :, :1280])


@needs_int8
def test_captions_are_the_same_in_any_batch_and_have_their_own_identity() -> None:
    images = [photograph(seed) for seed in range(9)]
    quick = Captioner.load("flickr8k", device="cpu", precision="int8")
    together = quick.caption(images)
    for image, caption in zip(images, together, strict=True):
        alone = quick.caption(image)
        assert alone.text == caption.text
        assert alone.confidence == pytest.approx(caption.confidence, abs=5e-3)  # rounding differs
    exact = Captioner.load("flickr8k", device="cpu", precision="float32")
    assert quick.identity == identify(CaptionerOptions(device="cpu", precision="int8"))
    assert quick.identity != exact.identity and quick.settings["precision"] == "int8"
    for one, other in zip(together, exact.caption(images), strict=True):
        assert one.log_prob == pytest.approx(other.log_prob, rel=0.5)


def test_a_model_without_weights_for_it_says_how_to_make_them(tiny_checkpoint: Path) -> None:
    with pytest.raises(CaptionerError, match=f"{tiny_checkpoint / INT8}: .*captioner quantize"):
        load_checkpoint(tiny_checkpoint).int8_for("int8")


@pytest.mark.parametrize(
    "value", [None, torch.ones(2), torch.tensor(1), torch.tensor(torch.nan), torch.tensor(0.0)]
)
def test_weights_that_do_not_fit_are_refused_by_name(value: Tensor | None, copy: Path) -> None:
    tensors = load_file(copy / INT8)
    del tensors["features.3.step"]
    if value is not None:
        tensors["features.3.step"] = value
    save_file(tensors, copy / INT8, {"source": hash_of(copy / WEIGHTS)})
    with pytest.raises(CheckpointError, match=f"{copy / INT8}: .*features.3.step"):
        load_checkpoint(copy).int8_for("int8")


def test_a_damaged_file_is_refused_by_name(copy: Path) -> None:
    (copy / INT8).write_bytes(b"GIF89a")
    with pytest.raises(CheckpointError, match=f"{copy / INT8}: cannot be read"):
        load_checkpoint(copy).int8_for("int8")


def test_new_weights_of_the_model_remove_those_for_int8(copy: Path) -> None:
    checkpoint = load_checkpoint(copy)
    save_checkpoint(copy, checkpoint.model, checkpoint.vocabulary)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_checkpoint(copy).int8_for("int8")


def test_weights_that_were_made_for_others_are_refused(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    tensors["decoder.output_bias"][0] += 1
    save_file(tensors, copy / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"other weights than model\.safetensors has"):
        load_checkpoint(copy).int8_for("int8")


def test_its_weights_are_part_of_its_own_identity_only(copy: Path) -> None:
    def identities() -> list[str]:
        options = CaptionerOptions(str(copy), "cpu")
        return [identify(replace(options, precision=each)) for each in ("float32", "int8")]

    exact, quick = identities()
    weights = load_checkpoint(copy).int8_for("int8")
    assert weights is not None
    weights.tensors["features.3.step"] *= 2
    weights.save(copy / INT8)
    assert identities()[0] == exact and identities()[1] not in (exact, quick)


@pytest.mark.parametrize(
    ("flags", "device", "message"),
    [("avx512_bf16", "cpu", "no instructions for int8"), ("avx512_vnni", "cuda", "is for CPUs")],
)
def test_where_it_cannot_be_computed_it_is_refused(
    flags: str, device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr("captioner.precision.CPU_INFO", tmp_path / "cpuinfo")
    with pytest.raises(CaptionerError, match=message):
        Captioner.load("flickr8k", device=device, precision="int8")


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let products of whole numbers be as on processors that cut off great ones."""
    monkeypatch.setattr(Int8Linear, "__call__", lambda self, x: torch.full((len(x), 16), 63.5))
    int8._is_exact.cache_clear()
    yield
    int8._is_exact.cache_clear()


@pytest.mark.usefixtures("cut_off")
def test_products_that_are_cut_off_are_noticed() -> None:
    with pytest.raises(CaptionerError, match="cannot be multiplied exactly here"):
        int8.require_int8()


def test_it_is_for_models_of_this_package() -> None:
    with pytest.raises(CaptionerError, match="int8 is not for hf:some/model"):
        Captioner.load("hf:some/model", precision="int8")
