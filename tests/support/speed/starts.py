"""Commands that do little, so that nearly all of their time is their start."""

import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path

from tests.support.commands import command
from tests.support.speed.figures import Row, in_turn, seconds_of
from tests.support.speed.photographs import write_photographs
from tests.support.speed.subject import Subject

NEW = 10  # images that a nightly run finds
NEW_SIZE, FIRST_NEW = "224x224", 10**6  # beyond the numbers of all other photographs
PER_FOLDER = 10_000


def time_starts(
    subject: Subject, paths: Sequence[Path], captioned: int, rounds: int, folder: Path
) -> list[Row]:
    """Return the seconds of `--help`, of one photograph, and of a few new ones among `captioned`.

    The captioned ones are the given photographs, each as often as it takes.
    """
    photos = folder / "photos"
    _link(paths, photos, captioned)
    nightly = command("run", photos, "--out", folder / "out", "--quiet", *subject.arguments)
    subprocess.run(nightly, check=True, stdout=subprocess.DEVNULL)
    numbers = count(FIRST_NEW, NEW)
    lines = {
        "captioner --help": command("--help"),
        "captioner caption, one photograph": command("caption", paths[0], *subject.arguments),
        f"captioner run, {NEW} new among {captioned:,}": nightly,
    }

    def run(line: Sequence[str]) -> float:
        if line is nightly:
            write_photographs(photos / "new", NEW_SIZE, NEW, next(numbers))
        return seconds_of(partial(_quietly, line), lambda: None)

    things: dict[str, Callable[[], float]] = {n: partial(run, line) for n, line in lines.items()}
    in_turn(dict(islice(things.items(), 2)), 1)  # so that their files are in memory
    return [Row(name, "s", seconds) for name, seconds in in_turn(things, rounds).items()]


def _quietly(line: Sequence[str]) -> None:
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def _link(paths: Sequence[Path], photos: Path, wanted: int) -> None:
    for number, path in enumerate(islice(cycle(paths), wanted)):
        folder = photos / f"{number // PER_FOLDER:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:07d}{path.suffix}").symlink_to(path.absolute())
