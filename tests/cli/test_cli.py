import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.jobs.cli.main import main
from tests.support.commands import captioner, command, environment
from tests.support.photographs import write_photographs
from tests.support.rows import row, write_rows

HEAVY = "{'torch', 'torchvision', 'dask', 'distributed', 'pandas'}"


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["status", "--help"], ["compact", "--help"], ["caption", "-h"]],
)
def test_help_imports_neither_torch_nor_dask(arguments: list[str]) -> None:
    code = (
        "import sys; from captioner.jobs.cli.main import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit: sys.exit(str({HEAVY} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.stderr == "set()\n"
    assert "usage: captioner" in result.stdout


def test_every_option_of_a_job_file_is_a_flag_but_tables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from captioner.jobs.config.job import keys

    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = capsys.readouterr().out
    flags = {flag.replace("-", "_") for flag in re.findall(r"--([a-z][a-z-]+)", text)}
    tables = {"storage_options", "prices", "second", "gates"}
    assert {*keys()} - {"source"} - tables <= flags
    assert flags - {*keys()} == {"config", "help", "like"}
    assert not flags & tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "SOURCE is missing: give it, or source in a job file"),
        (["run", "nowhere", "--out", "out"], "nowhere does not exist"),
        (["run", "nowhere", "--out", "out", "--beam-size", "0"], "--beam-size must be"),
        (
            ["run", "a", "--out", "o", "--min-confidence", "0.5", "--target-precision", "0.9"],
            "--min-confidence must be omitted if --target-precision is given",
        ),
        (["run", "nowhere", "--out", "out", "--config", "none.toml"], "cannot read none.toml"),
        (["status", "nowhere"], "nowhere holds no caption table"),
    ],
)
def test_an_error_of_the_user_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("captioner: error: ") and message in errors
    assert errors.count("\n") == 1


def test_a_wrong_source_leaves_no_folder_behind(tmp_path: Path) -> None:
    assert main(["run", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_status_counts_rows_from_the_files_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    captions = tmp_path / "captions"
    captions.mkdir()
    for part, states in enumerate((["ok", "ok"], ["ok", "denied"])):
        table = pa.table({"status": pa.array(states).dictionary_encode(), "captioner": ["m@1"] * 2})
        pq.write_table(table, captions / f"{part}.parquet")
    assert main(["status", str(tmp_path), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["statuses"] == {"ok": 3, "denied": 1}
    assert (status["images"], status["files"], status["captioners"]) == (4, 2, {"m@1": 4})
    assert main(["status", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "images     4\ncaptioned  3\nfailed     1 (1 denied)" in text


def test_a_foreign_file_in_the_table_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "foreign.parquet").write_text("text")
    assert main(["status", str(tmp_path)]) == 2
    assert "foreign.parquet is not a file of a caption table" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("captioner ")


def test_a_source_that_retry_failed_has_swallowed_is_named(tmp_path: Path) -> None:
    done = captioner("run", "--retry-failed", "photos", "--out", tmp_path)
    assert done.returncode == 2
    assert "--retry-failed: photos is not a status; put SOURCE before it" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "completion bash", "status . --failed"])
def test_output_that_nobody_reads_is_no_error(
    arguments: str, unbuffered: str, tmp_path: Path
) -> None:
    failed = {"status": "denied", "error": "403", "caption": None}
    write_rows(tmp_path, [row(f"/{number}.jpg", **failed) for number in range(20_000)])
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    assert reader.stdin is not None
    reader.wait()
    done = subprocess.run(
        command(*arguments.split()),
        env=environment(PYTHONUNBUFFERED=unbuffered),
        cwd=tmp_path,
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 141 or arguments == "--help"  # argparse ignores what it cannot print


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has this device")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["completion bash", "status . --failed --json"])
def test_output_that_cannot_be_written_is_one_clear_error(
    arguments: str, unbuffered: str, tmp_path: Path
) -> None:
    failed = {"status": "denied", "error": "403", "caption": None}
    write_rows(tmp_path, [row(f"/{number}.jpg", **failed) for number in range(20_000)])
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" > /dev/full', "sh", *command(*arguments.split())],
        env=environment(PYTHONUNBUFFERED=unbuffered),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    reason = "cannot write to standard output: No space left on device; redirect it elsewhere"
    assert (done.returncode, done.stderr) == (1, f"captioner: error: {reason}\n")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError(), "there is too little memory: allow more (ulimit -v)"),
        (RuntimeError("can't start new thread"), "no more threads can start: allow more processes"),
        (OSError(errno.EMFILE, "Too many open files"), "open files: allow more open files (ulimit"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "'x': mount it for writing"),
    ],
)
def test_what_the_machine_lacks_is_one_clear_error(
    fault: Exception,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(out: str) -> None:
        raise fault

    monkeypatch.setattr("captioner.jobs.table.status.read_status", fail)
    assert main(["status", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("captioner: error: ") and reason in line


def test_a_broken_pipe_elsewhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(out: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("captioner.jobs.table.status.read_status", fail)
    read, write = os.pipe()
    with os.fdopen(write, "w") as stdout, os.fdopen(read):
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError):
            main(["status", "out"])


def test_options_may_stand_between_the_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    write_rows(tmp_path / "out", [row("/a.jpg", caption="A dog.")])
    assert main(["search", "dog", "--limit", "5", out]) == 0
    assert "A dog." in capsys.readouterr().out
    assert main(["search", "a", "dog", "--limit", "5", out]) == 2
    assert "put QUERY into quotes" in capsys.readouterr().err
    photos = write_photographs(tmp_path / "photos", 2)
    sources = [str(photos / "000.jpg"), "--out", str(tmp_path / "new"), str(photos / "001.jpg")]
    assert main(["plan", *sources, "--sample", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert main(["plan", "--out", str(tmp_path / "new"), str(photos), "--sample", "0"]) == 0
    assert main(["plan", str(photos), "--out", str(tmp_path / "new"), "--no-such-option"]) == 2
    assert "there is no option --no-such-option" in capsys.readouterr().err
    assert main(["plan", str(photos), "--out", str(tmp_path / "new"), "--max-failure", "5"]) == 2
    assert "did you mean --max-failures?" in capsys.readouterr().err


# It says "ready" from within `main`, when that imports the command line.
ENTRY = """
import sys
from captioner.jobs.__main__ import main

class Ready:
    def find_spec(self, name, path, target=None):
        if name == "captioner.jobs.cli.main":
            print("ready", flush=True)

sys.meta_path.insert(0, Ready())
sys.exit(main())
"""


@pytest.mark.parametrize("seconds", [0.0, 0.03, 0.1, 0.3, 1.0])
def test_ctrl_c_while_the_command_starts_is_no_traceback(tmp_path: Path, seconds: float) -> None:
    write_photographs(tmp_path / "photos", 2)
    words = ["plan", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--sample", "0"]
    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may ignore it
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, *words],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, former)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) in [(130, "captioner: interrupted\n"), (0, "")]


def test_streams_that_are_closed_are_no_reason_to_fail(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    line = command("plan", photos, "--out", tmp_path / "out", "--sample", "0")
    closed = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *line], env=environment())
    assert closed.returncode == 0
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *line], env=environment(), stderr=subprocess.PIPE
    )
    assert b"Traceback" not in closed.stderr and closed.returncode == 0
