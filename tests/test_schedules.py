"""The examples of jobs/SCHEDULES.md, each checked by what reads it."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from captioner.jobs.cli.main import _parser
from captioner.jobs.config.job import JobConfig

TEXT = (Path(__file__).parent.parent / "jobs" / "SCHEDULES.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def command_lines() -> list[list[str]]:
    """The arguments of every command in the examples."""
    lines = [line for block in blocks("crontab") + blocks("ini") for line in block.splitlines()]
    words = [shlex.split(line.partition("bin/captioner ")[2]) for line in lines]
    words = [line[: line.index("2>&1")] if "2>&1" in line else line for line in words if line]
    (job,) = map(yaml.safe_load, blocks("yaml"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    tuples = re.findall(r"^COMMAND = \((.*)\)$|^CMD \[(.*)\]$", TEXT, re.MULTILINE)
    texts = [re.findall(r'"([^"]+)"', "".join(each)) for each in tuples]
    return [*words, container["args"], *([w for w in text if w != "captioner"] for text in texts)]


def test_every_command_has_options_that_exist() -> None:
    assert len(command_lines()) == 6
    for line in command_lines():
        assert _parser().parse_args(line).command


@pytest.mark.parametrize(("code", "mail"), [(0, ""), (3, "captioner exited with 3\n")])
def test_cron_mails_the_exit_code_unless_it_is_0(code: int, mail: str) -> None:
    *_, line = blocks("crontab")[0].splitlines()
    user, _, command = line.split(maxsplit=5)[5].partition(" ")
    assert user == "captioner"
    command = re.sub(
        r"/usr/local/bin/captioner [^|]*", f"(echo late >&2; exit {code}) 2>&1", command
    )
    command = command.replace("logger -t captioner", "cat > /dev/null")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (mail, "")


def test_the_job_file_is_valid() -> None:
    (text,) = blocks("toml")
    assert JobConfig(**tomllib.loads(text)).failure_limit(100) == 5


@pytest.mark.parametrize("number", range(2))
def test_the_python_compiles(number: int) -> None:
    compile(blocks("python")[number], "example", "exec")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    names = ("captioner.service", "captioner.timer")
    for name, unit in zip(names, blocks("ini"), strict=True):
        unit = unit.replace("/usr/local/bin/captioner", "/bin/true")
        (tmp_path / name).write_text(unit)
    verify = ["systemd-analyze", "verify", *names]
    done = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kubernetes_accepts_the_job() -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    for version in ("1.30", "1.33"):
        schemas.validate(yaml.safe_load(blocks("yaml")[0]), version, strict=True)
