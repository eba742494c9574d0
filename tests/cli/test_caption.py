"""`captioner caption`: captions without a table."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captioner.image import decode_image
from captioner.jobs.cli.main import main
from captioner.model_directory import mark_unfinished
from tests.support.files import write_memory
from tests.support.hostile_files.parts import encoded
from tests.support.photographs import photograph, write_photographs
from tests.support.servers import HttpServer

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(calibrated_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; return its exit code and the lines on stdout and stderr."""

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        options = ("--checkpoint", calibrated_checkpoint, "--device", "cpu")
        code = main(["caption", *map(str, (*arguments, *options))])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


def test_each_image_is_a_line_with_confidence_caption_and_uri(tmp_path: Path, run: Run) -> None:
    photos = write_photographs(tmp_path / "photos", 3)
    write_memory({"/caption/remote.jpg": photograph(7)})
    code, lines, errors = run(photos / "001.jpg", "memory://caption/remote.jpg", photos)
    assert (code, errors) == (0, [])
    confidences, captions, uris = zip(*(line.split("\t") for line in lines), strict=True)
    names = ["001.jpg", "remote.jpg", "000.jpg", "001.jpg", "002.jpg"]
    assert [Path(uri).name for uri in uris] == names
    assert all(0 <= float(confidence) <= 1 for confidence in confidences)
    assert captions[0] == captions[3] and all(text.endswith(".") for text in captions)


def test_a_bad_image_is_named_and_the_others_are_captioned(tmp_path: Path, run: Run) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    (photos / "bad.jpg").write_text("no image")
    images = [photos / "bad.jpg", photos / "000.jpg", photos / "none.jpg", photos / "001.jpg"]
    code, lines, errors = run(*images)
    assert code == 3
    assert [line.split("\t")[2] for line in lines] == [str(images[1]), str(images[3])]
    assert errors == [
        f"captioner: {images[0]}: unreadable: not an image, but text",
        f"captioner: {images[2]}: not_found: No such file or directory",
    ]


def test_what_grants_access_to_an_image_is_not_printed(http_server: HttpServer, run: Run) -> None:
    write_photographs(http_server.folder, 1)
    place = http_server.url.partition("://")[2]
    for start in (f"http://{place}", f"http://SECRET@{place}"):
        signed = [f"{start}/{name}.jpg?id=1&X-Amz-Signature=SECRET" for name in ("000", "no ne")]
        code, lines, errors = run(*signed)
        assert code == 3 and "SECRET" not in str((lines, errors))
        assert lines[0].endswith(f"\thttp://{place}/000.jpg?id=1")
        assert errors[0].startswith(f"captioner: http://{place}/no ne.jpg?id=1: not_found: ")
    assert "/000.jpg?id=1&X-Amz-Signature=SECRET" in http_server.requested


def test_json_has_an_object_for_each_image(tmp_path: Path, run: Run) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    code, lines, errors = run(photos / "000.jpg", photos / "none.jpg", "--json")
    good, bad = map(json.loads, lines)
    assert (code, errors) == (3, [])
    assert (good["status"], good["error"]) == ("ok", None)
    assert good["alternatives"][0].keys() == {"caption", "log_prob"}
    assert good["captioner"].startswith("calibrated@")
    assert (bad["status"], bad["caption"], bad["confidence"]) == ("not_found", None, None)


def test_settings_that_cannot_be_are_errors_of_the_user(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    assert run("a.jpg", "--beam-size", 0)[0] == 2
    assert run("a.jpg", "--max-characters", 3)[0] == 2
    assert run("a.jpg", "--send-pixels", 0)[0] == 2
    code, lines, errors = run(tmp_path / "empty")
    assert (code, lines) == (2, []) and "no images in" in errors[0]


def test_pillow_warns_of_no_image_that_is_captioned(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(encoded(Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\10\xff"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        decode_image(path.read_bytes(), 32)
        assert warned
        warned.clear()
        assert run(path)[0] == 0
    assert not warned


@pytest.mark.parametrize("command", ["caption", "plan", "run", "evaluate"])
def test_no_command_captions_with_a_model_whose_training_is_unfinished(
    command: str, calibrated_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    model = Path(shutil.copytree(calibrated_checkpoint, tmp_path / "model"))
    mark_unfinished(model)
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"image": "000.jpg", "captions": ["A dog."]}')
    arguments: dict[str, list[object]] = {
        "caption": [photos],
        "plan": [photos, "--out", tmp_path / "out"],
        "run": [photos, "--out", tmp_path / "out"],
        "evaluate": ["--images", photos, "--captions", captions],
    }
    words = [command, *arguments[command], "--checkpoint", model, "--device", "cpu"]
    assert main([str(word) for word in words]) == 2
    assert capsys.readouterr().err == (
        f"captioner: error: the training of {model} is unfinished: the `captioner train` that "
        "began it, given again, continues and finishes it\n"
    )
    assert not list((tmp_path / "out").glob("captions/*"))
