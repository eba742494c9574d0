"""What `captioner export` prints, and its job file."""

import subprocess
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.errors import ExitCode
from tests.support.commands import command, environment
from tests.support.rows import decide, row, write_rows


def test_texts_go_to_standard_output_and_the_summary_to_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path, [row("/a.jpg"), row("/b.jpg", needs_review=True)])
    arguments = ["export", str(tmp_path), "--format", "csv", "--columns", "image_uri, text"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out == "image_uri,text\n/a.jpg,A picture of a.\n"
    assert "write             1\n" in printed.err
    assert "review            1 (1 below the threshold)\n" in printed.err


def test_a_dry_run_shows_what_would_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uris = [str(tmp_path / f"{name}.jpg") for name in "ab"]
    out = write_rows(tmp_path / "out", [row(uri) for uri in uris])
    arguments = ["export", str(tmp_path / "out"), "--format", "txt"]
    main(arguments)
    (tmp_path / "b.txt").write_text("Mine.")
    decide(out, uris[0], "edited", "A dog.")
    capsys.readouterr()
    assert main([*arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        f"write     {uris[0]} in {tmp_path}/a.txt",
        "  - A picture of a.",
        "  + A dog.",
        f"keep      {uris[1]} in {tmp_path}/b.txt: a person's text",
        "  = Mine.",
        "  ? A picture of b.",
    ]
    assert (tmp_path / "a.txt").read_text() == "A picture of a.\n"


def test_a_usage_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    assert main(["export", str(tmp_path), "--format", "html"]) == 2
    assert capsys.readouterr().err == "captioner: error: --format html needs --to FOLDER\n"
    assert main(["export", str(tmp_path / "nowhere"), "--format", "csv"]) == 2
    assert "holds no caption table" in capsys.readouterr().err


def test_a_job_file_gives_the_options_of_stores(tmp_path: Path) -> None:
    write_rows(tmp_path / "out", [row("/a.jpg")])
    (tmp_path / "job.toml").write_text('[storage_options.s3]\nendpoint_url = "http://x"\n')
    arguments = ["export", str(tmp_path / "out"), "--format", "jsonl"]
    assert main([*arguments, "--config", str(tmp_path / "job.toml")]) == 0
    (tmp_path / "job.toml").write_text("storage_option = 1\n")
    assert main([*arguments, "--config", str(tmp_path / "job.toml")]) == 2


@pytest.mark.slow
def test_a_reader_may_stop_early(tmp_path: Path) -> None:
    write_rows(tmp_path, [row(f"/{number}.jpg") for number in range(20_000)])
    process = subprocess.Popen(
        command("export", tmp_path, "--format", "jsonl"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == ExitCode.BROKEN_PIPE


def test_no_folder_is_left_where_there_is_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = str(tmp_path / "texts.csv")
    assert main(["export", str(tmp_path / "nowhere"), "--format", "csv", "--to", to]) == 2
    assert "nowhere holds no caption table" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []
