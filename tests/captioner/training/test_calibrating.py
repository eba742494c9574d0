"""`captioner evaluate --calibrate`, as a user runs it."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from captioner import Captioner
from captioner.calibration import OWN_SIGNALS, SIGNALS, WORD_SIGNALS, read_calibration
from captioner.jobs.calibrations import with_calibration
from captioner.jobs.cli.main import main
from captioner.jobs.config.job import JobConfig
from captioner.loading import open_captioner
from tests.support.chat import Chat
from tests.support.photographs import photograph, write_photographs

pytestmark = pytest.mark.usefixtures("no_java")
COUNT = 60
PHOTOGRAPHS = [photograph(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def data(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of photographs; people would say what the model is surest of."""
    folder = tmp_path_factory.mktemp("data")
    captions = Captioner.load(tiny_checkpoint, device="cpu").caption(PHOTOGRAPHS)
    middle = sorted(caption.log_prob or 0 for caption in captions)[COUNT // 2]
    write_data(folder, [c.text if (c.log_prob or 0) >= middle else "a zebra" for c in captions])
    return folder


def write_data(folder: Path, texts: Sequence[str]) -> None:
    """Write photographs with what people say of them."""
    write_photographs(folder / "images", COUNT)
    with (folder / "captions.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"image": f"{number:03d}.jpg", "captions": [text] * 2}) + "\n")


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Return a model directory without a calibration."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def evaluate(data: Path, *arguments: object) -> int:
    paths = ("--images", data / "images", "--captions", data / "captions.jsonl")
    return main(["evaluate", *map(str, (*paths, "--device", "cpu", *arguments))])


def test_the_calibration_of_a_directory_is_kept_in_it(
    data: Path, model: Path, calibrated_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--first", calibrated_checkpoint)
    assert evaluate(data, "--checkpoint", model, "--calibrate", *first, "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["reliability"]["auroc"] > 0.8
    assert result["reliability_beside"]["auroc"] > 0.8
    assert result["reliability_words"]["ece"] < 0.3
    assert f"calibrated: {model / 'calibration.json'}" in printed.err
    calibration = read_calibration(model)
    assert calibration and tuple(calibration.signals) == SIGNALS and calibration.beside
    assert calibration.words and calibration.words.signals == [*WORD_SIGNALS]
    captions = Captioner.load(model, device="cpu").caption(PHOTOGRAPHS[:8])
    assert all(caption.confidence is not None for caption in captions)
    assert all(0 < (word.confidence or 0) < 1 for caption in captions for word in caption.words)


def test_the_confidence_that_a_captioner_has_is_scored_beside_a_first_one(
    data: Path, model: Path, calibrated_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--first", calibrated_checkpoint)
    assert evaluate(data, "--checkpoint", model, "--calibrate", *first) == 0
    assert "beside the first" in capsys.readouterr().out
    assert evaluate(data, "--checkpoint", model, *first) == 0
    alone, rest = capsys.readouterr().out.split("beside the first")
    beside, words = rest.split("content words")
    assert "AUROC" in alone and "AUROC" in beside and "AUROC" in words and "ECE" in words


def test_with_out_the_calibration_is_kept_for_the_runs_of_out(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(data, "--checkpoint", model, "--calibrate", "--first", model, "--out", out) == 0
    assert read_calibration(model) is None
    job = JobConfig(source="photos", out=out, checkpoint=model)
    calibration = with_calibration(job).calibration
    assert calibration and "beside" not in calibration  # both captioners are the same
    assert with_calibration(JobConfig(**{**vars(job), "beam_size": 5})).calibration is None
    capsys.readouterr()
    assert evaluate(data, "--checkpoint", model) == 0
    assert "AUROC" not in capsys.readouterr().out
    assert evaluate(data, "--checkpoint", model, "--out", out) == 0
    assert "AUROC" in capsys.readouterr().out


def test_a_model_of_transformers_has_a_confidence_once_it_is_calibrated(
    hf_model: Callable[[str], Path], calibrated_checkpoint: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(hf_model("speaking_blip"), tmp_path / "blip")
    before = Captioner.load(f"hf:{directory}", device="cpu")
    captions = before.caption(PHOTOGRAPHS)
    assert {caption.confidence for caption in captions} == {None}
    write_data(tmp_path, [c.text if n % 3 else "a zebra" for n, c in enumerate(captions)])
    first = ("--calibrate", "--first", calibrated_checkpoint)
    assert evaluate(tmp_path, "--checkpoint", f"hf:{directory}", *first) == 0
    after = Captioner.load(f"hf:{directory}", device="cpu")
    assert after.identity != before.identity
    assert after.calibration and tuple(after.calibration.signals) == OWN_SIGNALS
    assert all(0 < (caption.confidence or 0) < 1 for caption in after.caption(PHOTOGRAPHS[:8]))
    beside = after.calibration.beside
    assert beside and set(beside.signals) == {"log_odds", "other_log_odds", "agreement"}


def test_a_server_has_a_confidence_once_it_is_calibrated_in_out(
    chat: Chat, calibrated_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    chat.behave(always="says A dog runs on the grass.")
    dog, zebra = "a dog runs on grass", "a zebra"
    write_data(tmp_path, [dog if number % 3 else zebra for number in range(COUNT)])
    out = ("--out", tmp_path / "out")
    first = ("--calibrate", "--first", calibrated_checkpoint)
    assert evaluate(tmp_path, "--checkpoint", "openai:any", *first, *out) == 0
    assert len(chat.requests()) == COUNT
    job = JobConfig(source="photos", out=tmp_path / "out", checkpoint="openai:any")
    captioner = open_captioner(with_calibration(job).captioner)
    (caption,) = captioner.caption(PHOTOGRAPHS[:1])
    assert caption.confidence == pytest.approx(2 / 3, abs=0.05)
    assert captioner.calibration and captioner.calibration.beside


def test_some_images_are_enough_to_try(
    data: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(data, "--checkpoint", model, "--limit", 7) == 0
    assert "images             7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--calibrate", "--limit", 20), "20 captions are too few to calibrate"),
        (("--calibrate", "--checkpoint", "flickr8k"), "flickr8k is no directory"),
        (("--calibrate", "--checkpoint", "openai:model"), "openai:model is no directory"),
        (("--first", "no such model"), "no checkpoint 'no such model'"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    data: Path,
    model: Path,
    arguments: tuple[object, ...],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(data, "--checkpoint", model, *arguments) == 2
    assert expected in capsys.readouterr().err
    assert read_calibration(model) is None
