"""The READMEs: their code runs, their commands and links exist, and no option is missing."""

import argparse
import ast
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import duckdb
import pytest

from captioner.jobs.cli.main import _parser
from captioner.jobs.config.files import load_config
from captioner.jobs.config.job import JobConfig
from captioner.jobs.estimate import Estimate
from captioner.jobs.planning.asking import Asking
from captioner.jobs.preview import Preview
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.verify.findings import Finding, Sampled, Verification
from tests.support.commands import captioner
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import decide

ROOT = Path(__file__).parent.parent
FILES = [
    ROOT / "README.md",
    *sorted(path for name in ("captioner", "jobs", "schemas", "tests")
            for path in (ROOT / name).rglob("README.md")),
]  # fmt: skip
EVENT_AT = {"say": 1, "warn": 1, "note": 1, "_tell": 0, "event": 0}  # its argument, by function
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}


def blocks(language: str) -> list[object]:
    """The code blocks of a language in all READMEs, as parameters of a test."""
    return [
        pytest.param(block, id=f"{name}-{number}")
        for name, text in TEXTS.items()
        for number, block in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))
    ]


def command_lines() -> Iterator[tuple[str, str, set[str]]]:
    """README, command and options of each `captioner ...` in a block of shell commands."""
    for name, text in TEXTS.items():
        parts = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
        lines = "".join(parts).replace("\\\n", " ")
        for command, arguments in re.findall(r"^captioner ([\w-]+)(.*)$", lines, re.MULTILINE):
            words = shlex.split(arguments, comments=True)
            yield name, command, {word for word in words if word.startswith("--")}


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (group,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return group.choices


def options_of(command: str) -> set[str]:
    actions = commands()[command]._actions
    return {option for action in actions for option in action.option_strings} - {"-h", "--help"}


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the READMEs name: photographs, one of them damaged, and their table."""
    folder = tmp_path_factory.mktemp("readme")
    for number, name in enumerate(("dog.jpg", "beach.jpg")):
        (folder / name).write_bytes(photograph(number))
    photos = write_photographs(folder / "photos", 5)
    (photos / "broken.jpg").write_bytes(b"")
    job = ("run", "photos", "--out", "captions-of-photos", "--embeddings")
    done = captioner(*job, "--checkpoint", tiny_checkpoint, "--workers", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    decide(OutFolder(out_path(folder / "captions-of-photos")), f"{photos}/000.jpg", "edited", "Me.")
    return folder


@pytest.fixture
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("block", blocks("python"))
@pytest.mark.slow
@pytest.mark.usefixtures("in_folder")
def test_the_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.usefixtures("in_folder")
def test_the_pandas_query_finds_the_failure(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(# pandas.*?)```", TEXTS["schemas/README.md"], re.DOTALL)
    exec(block, {})
    assert "unreadable" in capsys.readouterr().out


@pytest.mark.parametrize("block", blocks("sql"))
@pytest.mark.slow
@pytest.mark.usefixtures("in_folder")
def test_the_sql_runs(block: str) -> None:
    answer = duckdb.sql(block)
    assert answer.columns
    if "reviews" in block:
        assert ("Me.",) in answer.select("text").fetchall()


@pytest.mark.parametrize("block", blocks("toml"))
def test_the_job_files_are_valid(block: str, tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(block, encoding="utf-8")
    assert isinstance(load_config({}, path), JobConfig)


def test_every_command_line_uses_options_that_exist() -> None:
    assert {command for _, command, _ in command_lines()} == set(commands())
    for name, command, options in command_lines():
        assert options <= options_of(command), f"{name}: captioner {command}"


@pytest.mark.parametrize("command", commands())
def test_every_option_of_a_command_is_in_a_readme_about_it(command: str) -> None:
    about = [text for text in TEXTS.values() if f"`captioner {command}`" in text
             or re.search(rf"^captioner {command}\b", text, re.MULTILINE)]  # fmt: skip
    documented = {option for text in about for option in re.findall(r"`(--[\w-]+)", text)}
    assert options_of(command) <= documented


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        assert not heading or heading in headings(file.read_text(encoding="utf-8")), target


def headings(text: str) -> set[str]:
    """The anchors of a text's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("package", sorted({p.parent.name for p in ROOT.glob("jobs/*/*.py")}))
def test_the_readme_of_a_package_lists_its_modules(package: str) -> None:
    files = (ROOT / "jobs" / package).glob("[a-z]*")
    modules = {path.stem for path in files if path.suffix == ".py" or path.is_dir()}
    assert modules <= set(re.findall(r"`(\w+)`", TEXTS[f"jobs/{package}/README.md"]))


def first_column(name: str, heading: str) -> set[str]:
    """What the table below a heading of a README has in backticks in its first column."""
    section = re.split(r"^#", TEXTS[name].partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("name", "kind"), [("jobs/verify/README.md", Verification), ("jobs/README.md", Preview)]
)
def test_the_fields_of_json_are_documented(name: str, kind: type[Verification | Preview]) -> None:
    assert first_column(name, "JSON") == {each.name for each in fields(kind)}
    for part in {Verification: (Finding, Sampled), Preview: (Estimate, Asking)}[kind]:
        assert {each.name for each in fields(part)} <= set(re.findall(r"`(\w+)`", TEXTS[name]))


def test_every_event_is_documented() -> None:
    assert first_column("jobs/README.md", "Events") == {*events()}


def events() -> Iterator[str]:
    """Yield the events of all messages of `captioner run` and `captioner plan`."""
    yield from ("library", "error", "warning")  # messages.py; errors, and what has no other name
    for path in (ROOT / "jobs").rglob("*.py"):
        if path.parent.name == "cli" and path.stem not in ("main", "run", "text"):
            continue  # of commands without events
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func).rpartition(".")[2]
                named = node.args[EVENT_AT.get(function, len(node.args)) :][:1]
            elif isinstance(node, ast.Yield) and path.stem == "text":
                named = getattr(node.value, "elts", [])[:1]
            else:
                continue
            yield from (e.value for e in named if isinstance(e, ast.Constant))


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = re.findall(r"^make ([\w-]+)", "\n".join(TEXTS.values()), re.MULTILINE)
    assert set(used) <= targets


def test_every_extra_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    used = re.findall(r"pip install '\.\[([\w,]+)\]'", "\n".join(TEXTS.values()))
    assert {name for names in used for name in names.split(",")} <= {
        *project["optional-dependencies"]
    }


def test_the_table_of_benchmarks_is_complete() -> None:
    named = set(re.findall(r"tests/benchmarks/\w+\.py", TEXTS["tests/README.md"]))
    assert named == {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests/benchmarks").glob("*.py")
    }
