"""How commands fail: what programs read on stdout, and options named as they were given."""

import json
import signal
import threading
from pathlib import Path

import pytest

from captioner.jobs.cli.failing import as_given
from captioner.jobs.cli.main import main

WITH_JSON = [
    ["run", "nowhere", "--out", "out"],
    ["plan", "nowhere", "--out", "out"],
    ["verify", "nowhere"],
    ["status", "nowhere"],
    ["status", "nowhere", "--failed"],
    ["caption", "nowhere.jpg", "--checkpoint", "none"],
    ["index", "nowhere"],
    ["search", "dog", "nowhere"],
    ["duplicates", "nowhere"],
    ["evaluate", "--images", "nowhere"],
    ["verify", "nowhere", "--beam-size", "many"],
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", WITH_JSON, ids=" ".join)
def test_a_command_with_json_that_fails_says_so_on_the_last_line_of_stdout(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    plain = capsys.readouterr()
    assert plain.out == ""
    assert main([*arguments, "--json"]) == 2
    printed = capsys.readouterr()
    failed = json.loads(printed.out.splitlines()[-1])
    assert failed.keys() == {"exit_code", "error"}
    assert failed["exit_code"] == 2
    assert printed.err == plain.err == f"captioner: error: {failed['error']}\n"


def test_a_job_file_may_ask_for_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "job.toml").write_text('source = "nowhere"\nout = "out"\njson = true\n')
    assert main(["run", "--config", "job.toml"]) == 2
    assert "does not exist" in json.loads(capsys.readouterr().out)["error"]


def test_a_fault_of_the_program_is_json_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_config: object) -> None:
        raise ZeroDivisionError("at https://h/a.jpg?X-Amz-Signature=secret")

    monkeypatch.setattr("captioner.jobs.run.run_passes", fail)
    assert main(["run", "photos", "--out", "out", "--json"]) == 1
    output, errors = capsys.readouterr()
    reason = "ZeroDivisionError('at https://h/a.jpg')"
    assert json.loads(output) == {"exit_code": 1, "error": reason}
    assert errors.startswith("Traceback") and "test_failing.py" in errors
    assert errors.endswith("ZeroDivisionError: at https://h/a.jpg\n")


def test_sigterm_ends_a_command_in_order_before_it_has_begun_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(
        "captioner.jobs.run.run_passes", lambda _config: signal.raise_signal(signal.SIGTERM)
    )
    assert main(["run", "photos", "--out", "out", "--json"]) == 143
    assert json.loads(capsys.readouterr().out) == {"exit_code": 143, "error": "interrupted"}


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["--retry-failed", "ok"], "--retry-failed must be some of "),
        (["--max-bytes", "0"], "--max-bytes: must be a number of bytes above 0, or a size such as"),
        (["--max-bytes=many"], "--max-bytes: must be a number of bytes above 0, or a size such as"),
        (["--min-confidence=2"], "--min-confidence must be a number from 0 to 1, not 2.0"),
        (["--beam-size", "x"], "--beam-size: must be a whole number, not 'x'; see `captioner run"),
        (["--image-timeout", "x"], "--image-timeout: must be a number, not 'x'"),
        (["--prune", "--only", "x"], "--prune must be omitted if --only is given"),
        (
            ["--redo-below", "0.1", "--redo-share", "1%"],
            "--redo-below must be omitted if --redo-share is",
        ),
        (["--where", "confidence > 1"], "--where needs redo_below or redo_share"),
        (["--target-precision", "0.5"], "job.toml: min_confidence must be omitted if --target-pre"),
        (["--beamsize", "2"], "there is no option --beamsize (did you mean --beam-size?); see `"),
        (["--zzz"], "there is no option --zzz; see `captioner run --help`"),
    ],
)
def test_options_are_named_as_they_were_given(
    arguments: list[str], begins: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_file = "min_confidence = 0.2\n" if "job.toml" in begins else ""
    (folder / "job.toml").write_text(f'out = "out"\n{in_file}')
    assert main(["run", "photos", "--config", "job.toml", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"captioner: error: {begins}")


def test_options_that_are_missing_are_those_of_the_command_line_without_a_job_file() -> None:
    text = "where needs redo_below or redo_share"
    arguments = ["run", "--where", "x > 1"]
    assert as_given(text, arguments) == "--where needs --redo-below or --redo-share"
    assert as_given("the column image_uri", arguments) == "the column image_uri"


@pytest.mark.parametrize(
    "text",
    [
        "/photos/max_bytes/none does not exist",
        "no images in s3://b/max_bytes/: give another SOURCE",
        "out of memory",
        "the file 'max_bytes' is no image",
    ],
)
def test_words_of_paths_and_sentences_are_no_options(text: str) -> None:
    assert as_given(text, ["run", "--max-bytes", "1", "--out", "out"]) == text
