"""The public interface: photographs in, captions out."""

import io
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from captioner import (
    Captioner,
    CaptionerError,
    ImageError,
    ImageTooLarge,
    SearchOptions,
    UnreadableImage,
)
from captioner.calibration import SIGNALS, Calibration, save_calibration
from captioner.caption import Caption
from captioner.identity import identity
from captioner.loading import identify, identify_model, open_captioner
from captioner.lstm.captioner import LstmCaptioner
from captioner.options import CaptionerOptions
from captioner.precision import precision_of
from captioner.words import FUNCTION_WORDS
from tests.support.photographs import photograph

IMAGES = [photograph(number) for number in range(64)]


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint: Path) -> Captioner:
    return Captioner.load(tiny_checkpoint, device="cpu")


def word_log_probs(captioner: Captioner) -> torch.Tensor:
    """Log-probabilities [N, T, V] after the same random words for each of IMAGES."""
    pictures = (Image.open(io.BytesIO(image)).resize((64, 64)) for image in IMAGES)
    words = torch.randint(4, 16, (64, 1, 10), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = captioner.encode(np.stack([np.asarray(picture) for picture in pictures]))
        memory = captioner.decoder.init_memory(features)
        state, logits = captioner.decoder.init_state(memory, sequences=1), []
        for tokens in words.to(features.device).unbind(2):
            state = captioner.decoder.step(tokens, state, memory)
            logits.append(captioner.decoder.predict(state.language_hidden)[:, 0])
        return torch.stack(logits, dim=1).float().log_softmax(-1).cpu()


def assert_close_for_captions(rounded: torch.Tensor, exact: torch.Tensor) -> None:
    """Assert that rounding is small against the differences between images."""
    assert exact.std(0).mean() > 0.05
    assert (rounded - exact).abs().mean() < 0.02


def test_a_batch_of_64_gets_the_captions_of_64_single_images(captioner: Captioner) -> None:
    together = captioner.caption(IMAGES, batch_size=64)
    alone = [captioner.caption([image])[0] for image in IMAGES]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    log_probs = [caption.log_prob for caption in alone]
    np.testing.assert_allclose([c.log_prob for c in together], log_probs, rtol=1e-4)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(),
        RuntimeError("CUDA error: out of memory\nCompile with ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=str,
)
def test_a_batch_too_large_for_the_memory_of_a_gpu_is_halved(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    captioner = LstmCaptioner.open(CaptionerOptions(str(tiny_checkpoint), device="cpu"))
    expected = captioner.caption(IMAGES[:13])
    encode, sizes = captioner.encoder, []

    def encode_few(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 4:
            raise error
        return encode(pixels)

    monkeypatch.setattr(captioner, "encoder", encode_few)
    halved = captioner.caption(IMAGES[:13])
    assert [caption.text for caption in halved] == [caption.text for caption in expected]
    assert sizes == [13, 7, 4, 3, 3, 3]
    assert captioner.batch_size == 4
    assert captioner.caption(IMAGES[:9], batch_size=9) == halved[:9]
    assert max(sizes[6:]) <= 4  # nothing is tried again that took too much


@pytest.fixture
def like_a_gpu(tiny_checkpoint: Path) -> LstmCaptioner:
    """Return a captioner that encodes no fewer images than before, though on a CPU."""
    captioner = LstmCaptioner.open(CaptionerOptions(str(tiny_checkpoint), device="cpu"))
    captioner._encodes_as_many = True
    return captioner


def test_a_gpu_encodes_no_fewer_images_than_before(
    captioner: Captioner, like_a_gpu: LstmCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = like_a_gpu.encoder
    monkeypatch.setattr(
        like_a_gpu, "encoder", lambda pixels: sizes.append(len(pixels)) or encode(pixels)
    )
    for count in (1, 13, 3, 40, 64, 5):
        found = like_a_gpu.caption(IMAGES[:count], batch_size=64)
        expected = captioner.caption(IMAGES[:count])
        assert [caption.text for caption in found] == [caption.text for caption in expected]
    assert sizes == [1, 16, 16, 64, 64, 64]
    monkeypatch.setattr("captioner.lstm.captioner.MOST_ENCODED", 8)
    like_a_gpu.caption(IMAGES[:13], batch_size=64)
    assert sizes[6:] == [8, 8]


@pytest.mark.parametrize(("images", "tried"), [(1, [16, 8, 4]), (13, [16, 8, 4, 4, 4, 4])])
def test_images_beside_which_a_gpu_has_no_memory_are_left_out(
    like_a_gpu: LstmCaptioner, monkeypatch: pytest.MonkeyPatch, images: int, tried: list[int]
) -> None:
    expected = like_a_gpu.caption(IMAGES[:13])[:images]
    encode, sizes = like_a_gpu.encoder, []

    def encode_few(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 4:
            raise torch.cuda.OutOfMemoryError
        return encode(pixels)

    monkeypatch.setattr(like_a_gpu, "encoder", encode_few)
    found = like_a_gpu.caption(IMAGES[:images])
    assert [caption.text for caption in found] == [caption.text for caption in expected]
    assert sizes == tried


def test_more_images_than_are_encoded_at_once_have_their_captions(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captioner.caption(IMAGES[:13], batch_size=13)
    monkeypatch.setattr("captioner.lstm.captioner.MOST_ENCODED", 4)
    in_parts = captioner.caption(IMAGES[:13], batch_size=13)
    assert [caption.text for caption in in_parts] == [caption.text for caption in expected]


def test_nouns_below_a_confidence_give_way_and_the_others_stay() -> None:
    def captions(back_off_below: float) -> list[Caption]:
        search = SearchOptions(back_off_below=back_off_below)
        return Captioner.load(device="cpu", search=search).caption([data.chelsea()])

    (never,), (usual,), (always,) = (captions(below) for below in (0, 0.5, 1))
    assert usual == never and never.text.startswith("A cat ")
    assert always.text == never.text.replace("A cat ", "An animal ")
    assert always.words[0].text == "animal"
    assert always.token_log_probs == never.token_log_probs


def test_a_caption_does_not_depend_on_its_neighbours(captioner: Captioner) -> None:
    forwards = captioner.caption(IMAGES, batch_size=7)
    backwards = captioner.caption(IMAGES[::-1], batch_size=13)[::-1]
    assert [caption.text for caption in forwards] == [caption.text for caption in backwards]


def test_paths_bytes_and_pixels_are_the_same_image(captioner: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    pixels = np.asarray(Image.open(io.BytesIO(IMAGES[0])).resize((64, 64)))
    Image.fromarray(pixels).save(path)
    picture = Image.open(path)
    captions = captioner.caption([path, str(path), path.read_bytes(), pixels, picture])
    assert len({caption.text for caption in captions}) == 1


def test_one_image_alone_gives_its_caption(captioner: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(IMAGES[0])
    (expected,) = captioner.caption([path])
    pixels = np.asarray(Image.open(path).resize((64, 64)))
    for image in (path, str(path), path.read_bytes(), Image.open(path)):
        assert captioner.caption(image) == expected
    assert captioner.caption(pixels).text == captioner.caption(pixels[np.newaxis])[0].text


def test_images_may_come_one_by_one(captioner: Captioner, tmp_path: Path) -> None:
    captions = captioner.caption((image for image in IMAGES[:9]), batch_size=4)
    assert captions == captioner.caption(IMAGES[:9], batch_size=4)


def test_a_picture_of_any_mode_is_turned_upright(captioner: Captioner) -> None:
    upright = Image.open(io.BytesIO(IMAGES[0])).convert("RGBA")
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    sideways.getexif()[0x0112] = 6  # turn it by 90 degrees, clockwise
    assert captioner.caption(sideways) == captioner.caption(upright)
    assert captioner.caption(sideways) != captioner.caption(
        upright.transpose(Image.Transpose.ROTATE_90)
    )


def test_a_caption_has_its_log_probabilities_and_alternatives(captioner: Captioner) -> None:
    caption = captioner.caption(IMAGES[:1])[0]
    words = caption.text.split()
    assert caption.text[0].isupper() and caption.text.endswith(".")
    assert len(caption.token_log_probs) == len(words) + 1
    assert caption.log_prob == pytest.approx(sum(caption.token_log_probs), rel=1e-5)
    assert len(caption.alternatives) == 2
    assert caption.text not in {other.text for other in caption.alternatives}
    assert caption.confidence is None  # the tiny model is not calibrated


def test_a_caption_has_its_content_words_as_they_are_in_its_text(captioner: Captioner) -> None:
    for caption in captioner.caption(IMAGES):
        texts = [word.text for word in caption.words]
        written = caption.text.removesuffix(".").split()
        assert texts == [word for word in written if word.lower() not in FUNCTION_WORDS]
        assert {word.confidence for word in caption.words} == {None}  # it is not calibrated


def test_words_have_a_confidence_by_the_signals_that_the_calibration_names(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    words = Calibration("right", "here", ["place"], [3.0], [1.0], [1.0], 0.0)
    ones = [1.0] * len(SIGNALS)
    whole = Calibration("good", "here", [*SIGNALS], ones, ones, ones, 0.0, words=words)
    save_calibration(directory, whole)
    calibrated = Captioner.load(directory, device="cpu")
    for caption in calibrated.caption(IMAGES):
        written = caption.text.removesuffix(".").split()
        places = [n for n, word in enumerate(written) if word.lower() not in FUNCTION_WORDS]
        expected = [1 / (1 + math.exp(3 - place)) for place in places]
        assert [word.confidence for word in caption.words] == pytest.approx(expected)
    settings = calibrated.settings["calibration"]
    assert isinstance(settings, dict) and settings["words"]["signals"] == ["place"]


def test_no_images_give_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_an_image_that_cannot_be_read_raises(captioner: Captioner) -> None:
    with pytest.raises(UnreadableImage):
        captioner.caption([b"text"])
    with pytest.raises(ImageError, match=r"none\.jpg: No such file"):
        captioner.caption("none.jpg")


def test_a_picture_that_turns_out_to_be_damaged_raises(captioner: Captioner) -> None:
    picture = Image.open(io.BytesIO(IMAGES[0][:-300]))
    with pytest.raises(UnreadableImage, match="truncated"):
        captioner.caption(picture)


def test_images_beyond_the_limit_of_pixels_are_refused(tiny_checkpoint: Path) -> None:
    limited = Captioner.load(tiny_checkpoint, device="cpu", max_pixels=100)
    with pytest.raises(ImageTooLarge, match="more than the limit of 100 in total"):
        limited.caption(photograph(0))


def test_images_that_cannot_be_read_may_be_skipped(captioner: Captioner) -> None:
    images = [b"", IMAGES[0], "none.jpg", IMAGES[1], IMAGES[2][:-200]]
    captions = captioner.caption(images, batch_size=2, on_error="skip")
    first, second = captioner.caption(IMAGES[:1]) + captioner.caption(IMAGES[1:2])
    assert captions == [None, first, None, second, None]
    assert captioner.caption(b"", on_error="skip") is None
    with pytest.raises(ValueError, match="on_error"):
        captioner.caption(images, on_error="ignore")  # type: ignore[call-overload]


def test_the_identity_changes_with_the_search(tiny_checkpoint: Path, captioner: Captioner) -> None:
    wider = Captioner.load(tiny_checkpoint, device="cpu", search=SearchOptions(beam_size=5))
    again = Captioner.load(tiny_checkpoint, device="cpu")
    assert captioner.identity.startswith("tiny@")
    assert again.identity == captioner.identity != wider.identity


def test_a_missing_gpu_is_an_error_that_suggests_the_cpu(tiny_checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(CaptionerError, match="cpu"):
        Captioner.load(tiny_checkpoint, device="cuda")


@pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
def test_computing_in_a_shorter_type_hardly_changes_the_log_probabilities(
    short: torch.dtype, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx512_fp16\n")
    monkeypatch.setattr("captioner.precision.CPU_INFO", tmp_path / "cpuinfo")
    log_probs = {}
    for dtype in (torch.float32, short):
        precision = str(dtype).removeprefix("torch.")
        captioner = Captioner.load(tiny_checkpoint, device="cpu", precision=precision)
        assert captioner.encode(np.zeros((1, 64, 64, 3), np.uint8)).dtype == dtype
        log_probs[dtype] = word_log_probs(captioner)
    assert_close_for_captions(log_probs[short], log_probs[torch.float32])


def test_a_cpu_without_instructions_for_float16_refuses_it(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n")
    monkeypatch.setattr("captioner.precision.CPU_INFO", tmp_path / "cpuinfo")
    with pytest.raises(CaptionerError, match="for float16: choose another precision"):
        Captioner.load(tiny_checkpoint, device="cpu", precision="float16")


def test_the_precision_is_known_without_torch_and_part_of_the_identity(
    tiny_checkpoint: Path,
) -> None:
    options = CaptionerOptions(str(tiny_checkpoint), "cpu")
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    assert precision_of(options) == ("bfloat16" if native else "float32")
    identities = set()
    for precision in ("auto", "float32", "bfloat16"):
        loaded = open_captioner(replace(options, precision=precision))
        assert loaded.identity == identify(replace(options, precision=precision))
        assert precision in (loaded.settings["precision"], "auto")
        identities.add(loaded.identity)
    assert len(identities) == 2


def test_the_version_of_the_pipeline_is_part_of_the_identity_but_not_of_a_calibration(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CaptionerOptions(str(tiny_checkpoint), "cpu")
    model, former = identify_model(options), identify(options)
    monkeypatch.setattr("captioner.loading.identity", partial(identity, pipeline_version=99))
    assert identify(options) != former
    assert identify_model(replace(options, precision="float32")) == model


def test_numbers_that_are_too_large_are_an_error_that_names_the_precision(
    tiny_checkpoint: Path,
) -> None:
    captioner = Captioner.load(tiny_checkpoint, device="cpu", precision="float32")
    features = captioner.encode(np.zeros((2, 64, 64, 3), np.uint8)).clone()
    features[1, 0, 0] = torch.inf
    with pytest.raises(CaptionerError, match="too large for float32"):
        captioner.search(features)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_computes_the_log_probabilities_a_cpu_computes(
    tiny_checkpoint: Path, captioner: Captioner
) -> None:
    on_gpu = Captioner.load(tiny_checkpoint, device="cuda")
    assert len(on_gpu.caption(IMAGES)) == len(IMAGES)
    assert_close_for_captions(word_log_probs(on_gpu), word_log_probs(captioner))
