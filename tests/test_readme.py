"""What the README shows works: its queries, its Python, its commands."""

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from captioner.jobs.cli.main import main
from tests.support.commands import captioner
from tests.support.photographs import write_photographs

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def blocks(language: str, containing: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language and containing in text]


@pytest.fixture(scope="module")
def out(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of five photographs and one that cannot be read."""
    folder = write_photographs(tmp_path_factory.mktemp("readme") / "photos", 5)
    (folder / "broken.jpg").write_bytes(b"")
    out = folder.parent / "out"
    done = captioner("run", folder, "--out", out, "--checkpoint", tiny_checkpoint, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return out


def test_the_sql_query_runs(out: Path) -> None:
    (query,) = blocks("sql", "SELECT")
    assert duckdb.sql(query.replace("OUT", str(out))).columns == ["image_uri", "caption"]


def test_the_pandas_query_finds_the_failure(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (query,) = blocks("python", "pd.read_parquet")
    exec(query.replace("OUT", str(out)), {})
    assert "unreadable" in capsys.readouterr().out


def test_the_dask_query_groups_by_status(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (query,) = blocks("python", "dd.read_parquet")
    exec(query.replace("OUT", str(out)), {})
    printed = capsys.readouterr().out
    assert "ok" in printed and "unreadable" in printed


def test_every_flag_the_readme_uses_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = " ".join(text for _, text in BLOCKS).replace("\\\n", " ")
    used = re.findall(
        r"^captioner (run|status|compact|train|evaluate) (.*)$", commands, re.MULTILINE
    )
    assert {command for command, _ in used} == {"run", "status", "compact", "train", "evaluate"}
    for command, arguments in used:
        flags = {word for word in shlex.split(arguments) if word.startswith("--")}
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert flags <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def test_every_file_the_readme_links_to_exists() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (root / target).exists(), target
