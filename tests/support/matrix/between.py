"""What happens to OUT between two runs: files are damaged, and other commands are killed."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.matrix.scene import Scene

SECONDS = 2.5  # within which a command that changes the table is killed


class Silent(Exception):
    """Damage that neither a run nor `captioner verify` saw."""


def damage_a_file(scene: Scene) -> str | None:
    """Damage a file of the table; the next commands must say so. Do what they say."""
    paths = sorted(Path(scene.out, "captions").glob("*.parquet"))
    if not paths:
        return None
    path = scene.dice.choice(paths)
    name = scene.dice.choice([*_DAMAGES])
    content, before = path.read_bytes(), pq.read_table(path)
    path.write_bytes(_DAMAGES[name](content, scene.dice))
    run = scene.command(*scene.run_line())
    if scene.command("verify", scene.out) == 0:
        if run == 0 and path.exists() and not _is_same(path, before):
            raise Silent(f"{name}: {path}")
    elif scene.command("verify", scene.out, "--repair") != 0 and path.exists():
        shutil.move(path, scene.folder)  # as the message says
    return name


def kill_compaction(scene: Scene) -> str | None:
    return _kill(scene, "compact", scene.out)


def kill_marking(scene: Scene) -> str | None:
    threshold = round(scene.dice.random(), 2)
    return _kill(scene, "review", scene.out, "--min-confidence", threshold)


def _kill(scene: Scene, *arguments: object) -> str | None:
    process = scene.start(*arguments)
    time.sleep(scene.dice.uniform(0.5, SECONDS))
    is_alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    scene.end_of(process)
    return f"{arguments[0]} SIGKILL" if is_alive else None


def _is_same(path: Path, before: pa.Table) -> bool:
    try:
        return bool(pq.read_table(path).equals(before))
    except (OSError, pa.ArrowException):
        return False


def _flip(content: bytes, dice: Random) -> bytes:
    place = dice.randrange(len(content))
    flipped = content[place] ^ (1 << dice.randrange(8))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def _zeros(content: bytes, dice: Random) -> bytes:
    place = dice.randrange(len(content))
    return content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :]


_DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "table file: bit flipped": _flip,
    "table file: truncated": lambda content, dice: content[: dice.randrange(len(content))],
    "table file: zeros": _zeros,
    "table file: empty": lambda content, dice: b"",
}
