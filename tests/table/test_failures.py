"""The images of a table without a caption."""

import json
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from captioner.jobs.errors import UsageError
from captioner.jobs.table.failures import Failure, read_failures
from tests.support.rows import row, write_rows


@pytest.fixture
def out(tmp_path: Path) -> Path:
    denied = {"status": "denied", "error": "403\n\tForbidden", "caption": None}
    write_rows(tmp_path, [row("/a.jpg"), row("/b.jpg", **denied)], "1")
    write_rows(tmp_path, [row("/c.jpg", **denied | {"status": "timeout"}), row("/d.jpg")], "2")
    return tmp_path


def test_every_failed_image_is_read_with_its_reason(out: Path) -> None:
    assert list(read_failures(out)) == [
        Failure("/b.jpg", "denied", "403\n\tForbidden"),
        Failure("/c.jpg", "timeout", "403\n\tForbidden"),
    ]


def test_the_failed_images_are_listed_one_a_line(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(out), "--failed"]) == 0
    assert capsys.readouterr().out == (
        "denied\t/b.jpg\t403 Forbidden\ntimeout\t/c.jpg\t403 Forbidden\n"
    )
    assert main(["status", str(out), "--failed", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == {"image_uri": "/c.jpg", "status": "timeout", "error": "403\n\tForbidden"}
    assert len(lines) == 2


def test_a_folder_without_a_table_has_no_failures_to_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no caption table"):
        list(read_failures(tmp_path / "none"))
