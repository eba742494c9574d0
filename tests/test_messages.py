"""What is said on stderr, for people and for programs."""

import json
import logging
import subprocess
import sys
import warnings

import pytest

from captioner.jobs.messages import (
    LOGGER,
    about,
    how_many,
    note,
    on_stderr,
    say,
    say_error,
    summed_up,
    warn,
)
from tests.support.commands import captioner, environment

OTHERS = r"""
import logging, os, subprocess, sys, threading, warnings
from captioner.jobs.messages import on_stderr, say
with on_stderr("json"):
    say("first")
    os.write(2, b"from C\n\n")
    print("half a line", end="", file=sys.stderr)
    warnings.warn("deprecated")
    logging.getLogger("library").error("broken")
    logging.getLogger("library").info("chatter")
    subprocess.run([sys.executable, "-c", "import sys; print('of a child', file=sys.stderr)"])
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    say("last \ud800")
print("plain again", file=sys.stderr)
"""


def test_people_read_lines_that_do_nothing_to_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with on_stderr():
        say("found\ttwo\nlines of \x1b[31mred\x07")
        note("not for people", "committed")
        warn("careful")
        say_error("no such thing", 2)
    assert capsys.readouterr().err == (
        "captioner: found\ttwo\nlines of \\x1b[31mred\\x07\n"
        "captioner: careful\ncaptioner: error: no such thing\n"
    )


def test_programs_read_a_json_object_on_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    with on_stderr("json"), about(run_id="r1"):
        say("two\nlines", "progress", {"images": 2})
        note("part 1", "committed", {"part": "1"})
        say_error("no such thing", 2)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    names = [(each["level"], each["event"], each["run_id"]) for each in lines]
    assert names == [
        ("info", "progress", "r1"),
        ("info", "committed", "r1"),
        ("error", "error", "r1"),
        ("warning", "library", "r1"),
    ]
    assert (lines[0]["images"], lines[1]["part"], lines[2]["exit_code"]) == (2, "1", 2)
    assert lines[0]["at"].endswith("+00:00") and "old" in lines[3]["message"]


def test_nothing_else_is_on_stderr_whoever_writes_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OTHERS],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, last = done.stderr.splitlines()
    assert last == "plain again"
    messages = [json.loads(line)["message"] for line in lines]
    for expected in ("first", "from C", "broken", "of a child", "ZeroDivisionError", "last"):
        assert any(expected in message for message in messages), expected
    assert any("half a line" in message for message in messages)
    assert not any("chatter" in message for message in messages)


def test_a_program_with_a_handler_of_its_own_gets_the_messages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record.getMessage())

    kept: list[str] = []
    handler = Kept()
    LOGGER.addHandler(handler)
    try:
        with on_stderr():
            warn("hello")
    finally:
        LOGGER.removeHandler(handler)
    assert kept == ["hello"] and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 images"), (1, "1 image"), (1204, "1,204 images")]
)
def test_one_thing_is_singular(count: int, text: str) -> None:
    assert how_many(count, "image") == text


def test_counts_by_reason_are_summed_up_by_kind() -> None:
    others = {f"not opened: .{letter}": 1 for letter in "abcd"}
    reasons = {"hidden": 3, "not opened: .psd": 1200, **others, "excluded by raw": 7}
    kinds = "1,204 not opened (.psd 1,200, .a 1, .b 1, 2 others)"
    assert summed_up(reasons) == f"{kinds}, 7 excluded by raw, 3 hidden"
    assert summed_up({"x: .a": 2, "x": 1}) == "3 x (.a 2, 1 other)"
    assert summed_up({}) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--no-such-option", "--log-format", "json"],
        ["run", "nowhere", "--out", "out", "--log-format=json"],
        ["run", "--config", "job.toml"],
    ],
)
def test_errors_of_usage_are_json_as_well(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from captioner.jobs.cli.main import main

    folder = tmp_path_factory.mktemp("job")
    (folder / "job.toml").write_text('log_format = "json"\nouut = "out"\n')
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    error = json.loads(line)
    assert (error["event"], error["level"], error["exit_code"]) == ("error", "error", 2)
    if "--config" in arguments:
        assert "unknown key 'ouut'; did you mean 'out'?" in error["message"]


def test_a_fault_of_the_program_is_json_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from captioner.jobs.cli.main import main

    def fail(_config: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("captioner.jobs.run.run_passes", fail)
    assert main(["run", "photos", "--out", "out", "--log-format", "json"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "in fail" in json.loads(line)["traceback"]


def test_other_commands_have_no_format() -> None:
    done = captioner("status", "nowhere", "--log-format", "json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no option --log-format; see `captioner status --help`" in done.stderr
