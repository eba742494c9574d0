"""The one public call: photographs in, captions out."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photograph
from PIL import Image

from captioner import Captioner, SearchOptions
from captioner.errors import CaptionerError, UnreadableImage

IMAGES = [photograph(number) for number in range(64)]


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint: Path) -> Captioner:
    return Captioner.load(tiny_checkpoint, device="cpu")


def test_a_batch_of_64_gets_the_captions_of_64_single_images(captioner: Captioner) -> None:
    together = captioner.caption(IMAGES, batch_size=64)
    alone = [captioner.caption([image])[0] for image in IMAGES]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    log_probs = [caption.log_prob for caption in alone]
    np.testing.assert_allclose([c.log_prob for c in together], log_probs, rtol=1e-4)


def test_neighbours_do_not_matter(captioner: Captioner) -> None:
    forwards = captioner.caption(IMAGES, batch_size=7)
    backwards = captioner.caption(IMAGES[::-1], batch_size=13)[::-1]
    assert [caption.text for caption in forwards] == [caption.text for caption in backwards]


def test_paths_bytes_and_pixels_are_the_same_image(captioner: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    pixels = np.asarray(Image.open(io.BytesIO(IMAGES[0])).resize((64, 64)))
    Image.fromarray(pixels).save(path)
    captions = captioner.caption([path, str(path), path.read_bytes(), pixels])
    assert len({caption.text for caption in captions}) == 1


def test_a_caption_says_how_it_came_about(captioner: Captioner) -> None:
    caption = captioner.caption(IMAGES[:1])[0]
    words = caption.text.split()
    assert caption.text[0].isupper() and caption.text.endswith(".")
    assert len(caption.token_log_probs) == len(words) + 1
    assert caption.log_prob == pytest.approx(sum(caption.token_log_probs), rel=1e-5)
    assert len(caption.alternatives) == 2
    assert caption.text not in {other.text for other in caption.alternatives}
    assert caption.confidence is None  # the tiny model is not calibrated


def test_no_images_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_an_image_that_cannot_be_read_raises(captioner: Captioner) -> None:
    with pytest.raises(UnreadableImage):
        captioner.caption([b"text"])


def test_the_identity_changes_with_the_search(tiny_checkpoint: Path, captioner: Captioner) -> None:
    wider = Captioner.load(tiny_checkpoint, device="cpu", search=SearchOptions(beam_size=5))
    again = Captioner.load(tiny_checkpoint, device="cpu")
    assert captioner.identity.startswith("tiny@")
    assert again.identity == captioner.identity != wider.identity


def test_a_missing_gpu_is_an_error_with_a_remedy(tiny_checkpoint: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(CaptionerError, match="cpu"):
        Captioner.load(tiny_checkpoint, device="cuda")


def test_computing_in_bfloat16_hardly_changes_the_log_probabilities(
    tiny_checkpoint: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.captioner.compute_dtype", lambda device: torch.bfloat16)
    rounded = Captioner.load(tiny_checkpoint, device="cpu")
    assert rounded.encode(np.zeros((1, 64, 64, 3), np.uint8)).dtype == torch.bfloat16
    for exact, near in zip(captioner.caption(IMAGES), rounded.caption(IMAGES), strict=True):
        assert near.log_prob == pytest.approx(exact.log_prob, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_writes_the_captions_a_cpu_writes(
    tiny_checkpoint: Path, captioner: Captioner
) -> None:
    on_gpu = Captioner.load(tiny_checkpoint, device="cuda").caption(IMAGES)
    for there, here in zip(on_gpu, captioner.caption(IMAGES), strict=True):
        assert there.log_prob == pytest.approx(here.log_prob, rel=0.05)  # bfloat16 there
