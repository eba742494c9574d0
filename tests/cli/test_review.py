"""The command `captioner review`: the page until Ctrl-C, and the spreadsheet."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.errors import ExitCode
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.table.reviews import as_reviews, read_reviews
from tests.support.commands import GIVE_UP_SECONDS, start
from tests.support.reviewing import Reviewing
from tests.support.rows import row, write_rows
from tests.support.servers import S3Server


@pytest.mark.slow
def test_ctrl_c_ends_the_page_and_says_how_many_decisions_were_saved(tmp_path: Path) -> None:
    out = write_rows(tmp_path / "out", [row(f"/{name}.jpg") for name in "abc"])
    with start("review", tmp_path / "out", "--no-browser", "--reviewer", "ann") as command:
        assert command.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", command.stdout.readline())
        assert found
        page = Reviewing(found[0])
        for item in page.queue()["items"][:2]:
            page.decide(item, "accepted")
        command.send_signal(signal.SIGINT)
        printed, errors = command.communicate(timeout=GIVE_UP_SECONDS)
    assert (command.returncode, errors) == (0, "")
    assert f"2 decisions saved in {tmp_path}/out/reviews" in printed
    assert [each.reviewer for each in as_reviews(read_reviews(out))] == ["ann", "ann"]


def test_a_sheet_is_written_taken_back_and_undone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, sheet = str(tmp_path / "out"), tmp_path / "sheet.csv"
    write_rows(tmp_path / "out", [row(f"/{name}.jpg") for name in "abc"])
    condition = ("--where", "image_uri <> '/c.jpg'")
    assert main(["review", folder, "--csv", str(sheet), *condition]) == ExitCode.DONE
    filled = sheet.read_text(encoding="utf-8").replace('"","A picture of a."', '"","A dog."')
    filled = filled.replace('"","A picture of b."', '"maybe","A picture of b."')
    sheet.write_text(filled, encoding="utf-8")
    assert main(["review", folder, "--import", str(sheet)]) == ExitCode.TOO_MANY_FAILURES
    assert main(["review", folder, "--undo"]) == ExitCode.DONE
    assert main(["review", folder, "--undo"]) == ExitCode.DONE
    printed, errors = capsys.readouterr()
    assert "2 rows to review in" in printed
    assert "1 decision saved, 0 rows without a new one, 1 refused" in printed
    assert "1 decision of the latest import taken back" in printed
    assert re.search(r"sheet\.csv, line \d: 'maybe' is no decision", errors)
    assert "there is no import to take back" in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--where", "confidence >"], "at character 13"),
        (["--port", "99999", "--no-browser"], "port 99999 does not exist"),
        (["--host", "no.such.host.invalid", "--no-browser"], "cannot serve"),
        (["--config", "missing.toml"], "cannot read missing.toml"),
    ],
)
def test_impossible_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    assert main(["review", str(tmp_path), *options]) == ExitCode.USAGE
    assert reason in capsys.readouterr().err


def test_an_out_without_a_table_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", str(tmp_path)]) == ExitCode.USAGE
    assert "holds no caption table" in capsys.readouterr().err


@pytest.fixture
def options_end_here() -> Iterator[None]:
    """Forget the storage options that a command sets in this process."""
    yield
    configure({})


@pytest.mark.usefixtures("options_end_here")
def test_a_table_on_a_store_is_reviewed_with_the_options_of_a_job_file(
    s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "out", [row("/a.jpg")])
    (part,) = (tmp_path / "out" / "captions").iterdir()
    bucket = s3_server.bucket({f"out/captions/{part.name}": part.read_bytes()})
    job = tmp_path / "job.toml"
    job.write_text(f'[storage_options.s3]\nendpoint_url = "{s3_server.endpoint}"\n')
    options = ["review", f"{bucket}/out", "--config", str(job)]
    sheet = tmp_path / "sheet.csv"
    assert main([*options, "--csv", str(sheet)]) == ExitCode.DONE
    content = sheet.read_text(encoding="utf-8").replace(',"","A p', ',"rejected","A p')
    sheet.write_text(content, encoding="utf-8")
    assert main([*options, "--import", str(sheet)]) == ExitCode.DONE
    assert main([*options, "--undo"]) == ExitCode.DONE
    assert "1 decision of the latest import" in capsys.readouterr().out


def test_the_threshold_is_changed_and_status_review_and_export_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    rows = [row(f"/{n}.jpg", confidence=n / 10) for n in range(10)]
    write_rows(tmp_path / "out", rows)
    assert main(["review", out, "--min-confidence", "0.4"]) == ExitCode.DONE
    printed = capsys.readouterr().out
    assert printed.startswith("marked     10 rows again\n")
    assert "\nto review  4 (confidence below 0.4)\n" in printed
    assert main(["review", out, "--csv", str(tmp_path / "sheet.csv")]) == ExitCode.DONE
    assert "4 rows to review in" in capsys.readouterr().out
    assert main(["export", out, "--format", "csv", "--to", str(tmp_path / "texts.csv")]) == 0
    assert len((tmp_path / "texts.csv").read_text().splitlines()) == 1 + 6
    assert main(["review", out, "--clear"]) == ExitCode.DONE
    assert "to review" not in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--min-confidence", "2"], ["--target-precision", "-0.1"]])
def test_a_threshold_is_from_0_to_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    assert main(["review", str(tmp_path), *options]) == ExitCode.USAGE
    assert "must be from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "confidence > 0.5", "--min-confidence", "0.5"], "--where has no meaning with"),
        (["--where", "confidence > 0.5", "--undo"], "--where has no meaning with --undo"),
        (["--port", "8080", "--csv", "x.csv"], "--port has no meaning with --csv"),
        (["--no-browser", "--import", "x.csv"], "--no-browser has no meaning with --import"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    write_rows(tmp_path, [row("/a.jpg")])
    assert main(["review", str(tmp_path), *options]) == ExitCode.USAGE
    assert message in capsys.readouterr().err
