"""The scripts of `captioner completion`, in the shells themselves."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from captioner.jobs.cli.main import main
from tests.support.commands import GIVE_UP_SECONDS, environment

INTERACTIVE = {
    "bash": ("bash --norc --noprofile -i", ""),
    "zsh": ("zsh -f -i", "autoload -U compinit; compinit -u -D; "),
}
LINES = [
    ("captioner stat", "status"),
    ("captioner run --batch", "--batch-size"),
    ("captioner plan photos --device cu", "cuda"),
    ("captioner status the-ta", "the-table"),
    ("captioner run a --out the-ta", "the-table"),
    ("captioner completion f", "fish"),
]


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with the script of each shell, and a table."""
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        (tmp_path / f"script.{shell}").write_text(capsys.readouterr().out)
    (tmp_path / "the-table").mkdir()
    return tmp_path


def require(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@contextmanager
def terminal(command: Sequence[str], cwd: Path) -> Iterator[int]:
    """Start a shell at a terminal; yield the terminal's other end."""
    keyboard, tty = pty.openpty()
    variables = {**os.environ, "TERM": "dumb", "PS1": "> ", "HOME": str(cwd)}
    shell = subprocess.Popen(
        command, stdin=tty, stdout=tty, stderr=tty, cwd=cwd, env=variables, start_new_session=True
    )
    os.close(tty)
    try:
        yield keyboard
    finally:
        shell.kill()
        shell.wait()
        os.close(keyboard)


def read_until(keyboard: int, text: str) -> str:
    """Read what a shell prints until it has printed a text."""
    printed, deadline = "", time.monotonic() + GIVE_UP_SECONDS
    while text not in printed and time.monotonic() < deadline:
        if select.select([keyboard], [], [], 1)[0]:
            printed += os.read(keyboard, 4096).decode()
    return printed


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_tab_completes_commands_options_values_and_paths(shell: str, folder: Path) -> None:
    require(shell)
    command, first = INTERACTIVE[shell]
    for line, completed in LINES:
        with terminal(command.split(), folder) as keyboard:
            setup = f'{first}eval "$(cat script.{shell})"; echo I am re""ady\n'
            os.write(keyboard, setup.encode())
            read_until(keyboard, "I am ready")
            os.write(keyboard, f"{line}\t".encode())
            start, _, _ = line.rpartition(" ")
            assert f"{start} {completed}" in read_until(keyboard, f"{start} {completed}")


def test_fish_completes_commands_options_values_and_paths(folder: Path) -> None:
    require("fish")
    for line, completed in LINES:
        code = f"source script.fish; complete -C '{line}'"
        variables = {**os.environ, "HOME": str(folder)}
        found = subprocess.check_output(["fish", "-c", code], cwd=folder, env=variables, text=True)
        candidates = [candidate.split("\t")[0].rstrip("/") for candidate in found.splitlines()]
        assert candidates == [completed]


def test_a_script_is_made_without_torch_and_dask() -> None:
    code = (
        "import sys; from captioner.jobs.cli.main import main; main(['completion', 'bash'])\n"
        "sys.exit(str({'torch', 'dask', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.stderr == "set()\n"
