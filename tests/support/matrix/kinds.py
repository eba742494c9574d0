"""The kinds of faults: what is done to a command at work, and what may follow from it."""

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.matrix.faulty_proxy import FAILURES
from tests.support.matrix.others import (
    compact_at_once,
    decide_at_once,
    mark_at_once,
    read_at_once,
    run_at_once,
)
from tests.support.matrix.scene import END_SECONDS, Scene, picture_file

Deliver = Callable[[Scene], bool]
SHORTEST, LONGEST = 0.2, 4.0  # seconds of a fault that passes
BALLAST = b"x" * 65536
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)


@dataclass(frozen=True)
class Kind:
    """A kind of faults, the exit codes that it explains, and statuses of rows that it may cause.

    0 and 75 need no explanation.
    """

    name: str
    deliver: Deliver
    codes: tuple[int, ...] = ()
    statuses: tuple[str, ...] = ()


def kinds_of(scene: Scene) -> list[Kind]:
    """Return the kinds of faults that can happen in a scene."""
    kinds = [*_signals("driver"), *_signals("worker"), *_signals("watchdog"), *_OTHERS]
    if scene.second:  # a person's decision keeps an image from being asked about
        kinds = [kind for kind in kinds if kind.deliver is not decide_at_once]
    if scene.cluster:
        return [*kinds, *_signals("nanny"), *_signals("scheduler")]
    kinds += [*_signals("group"), *_signals("forkserver")]
    kinds += [Kind("tracker SIGKILL", _signalling("tracker", signal.SIGKILL))]
    if scene.proxy:
        kinds += _failures(scene)
    if scene.photos.exists():
        kinds += _SOURCE
    if "://" not in scene.out:
        kinds += _LOCAL
        kinds += [_FULL] if scene.disk else []
    return kinds


def _failures(scene: Scene) -> list[Kind]:
    """Return the failures of its server, several times: there are so many others."""
    is_source = "://" not in scene.out
    name = f"{scene.name}: " + "{}"
    statuses = ("fetch_failed", "timeout") if is_source else ()
    return 2 * [Kind(name.format(each), _failing(each), (), statuses) for each in FAILURES]


def _failing(failure: str) -> Deliver:
    def deliver(scene: Scene) -> bool:
        assert scene.proxy
        with scene.proxy.failing(failure, scene.dice.choice((0.3, 0.6, 1.0))):
            _wait(scene)
        return True

    return deliver


def _wait(scene: Scene) -> None:
    time.sleep(scene.dice.uniform(SHORTEST, LONGEST))


# Processes


def _signals(role: str) -> list[Kind]:
    return [_signal(role, number) for number in SIGNALS]


def _signal(role: str, number: signal.Signals) -> Kind:
    ends = {signal.SIGTERM: 143, signal.SIGINT: 130}.get(number)
    is_command = role in ("driver", "group")
    codes = (-number, *([ends] if ends else [])) if is_command else ()
    statuses = () if role == "watchdog" else ("crashed",)
    return Kind(f"{role} {number.name}", _signalling(role, number), codes, statuses)


def _signalling(role: str, number: signal.Signals) -> Deliver:
    def deliver(scene: Scene) -> bool:
        assert scene.process
        if role == "group":
            return _signal_group(scene, scene.process.pid, number)
        processes = scene.family(role)
        if not processes:
            return False
        process = scene.dice.choice(processes)
        try:
            process.send_signal(number)
            if number == signal.SIGSTOP:
                _wait(scene)
                process.send_signal(signal.SIGCONT)
            elif role in ("nanny", "scheduler"):
                process.wait(END_SECONDS)  # before another one is started
        except psutil.Error:
            return False
        return True

    return deliver


def _signal_group(scene: Scene, group: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        if number == signal.SIGSTOP:
            _wait(scene)
            os.killpg(group, signal.SIGCONT)
        return True
    return False


# Disks


def _fill_disk(scene: Scene) -> bool:
    assert scene.disk
    ballast = scene.disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(BALLAST)
    _wait(scene)
    ballast.unlink()
    return True


def _limit_files(scene: Scene) -> bool:
    """Let a process write no more than a few bytes to any file."""
    processes = scene.family(scene.dice.choice(("driver", "worker")))
    if not processes:
        return False
    process = scene.dice.choice(processes)
    hard = resource.RLIM_INFINITY
    try:
        process.rlimit(psutil.RLIMIT_FSIZE, (scene.dice.choice((0, 100, 4096)), hard))
        _wait(scene)
        for each in scene.living():
            with suppress(psutil.Error):
                each.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    except psutil.Error:
        return False
    return True


def _deny_folder(scene: Scene) -> bool:
    """Take away the right to write to a folder of OUT, or to the one for temporary files."""
    out = Path(scene.out)
    folders = [out, out / "captions", out / "runs", *out.glob("runs/*/*/"), scene.temporary]
    folder = scene.dice.choice([each for each in folders if each.is_dir()])
    mode = folder.stat().st_mode
    folder.chmod(scene.dice.choice((0o000, 0o555)))
    _wait(scene)
    with suppress(FileNotFoundError):
        folder.chmod(mode)
    return True


# The source


def _change_image(scene: Scene) -> bool:
    """Write another picture to an image, as a slow program does or all at once."""
    image = scene.dice.randrange(len(scene.pictures))
    other = {image, image + len(scene.pictures)} - {scene.pictures[image][-1]}
    content = scene.show(image, other.pop())
    path = scene.photos / f"{image:03d}.jpg"
    if scene.dice.random() < 0.5:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            _wait(scene)
            file.write(content[len(content) // 2 :])
    else:
        new = path.with_name("new")
        new.write_bytes(content)
        new.replace(path)
    return True


def _hide_images(scene: Scene) -> bool:
    """Move some images away, and back."""
    numbers = scene.dice.sample(range(len(scene.pictures)), len(scene.pictures) // 5)
    paths = [scene.photos / f"{number:03d}.jpg" for number in numbers]
    away = scene.folder / "away"
    away.mkdir(exist_ok=True)
    for path in paths:
        path.rename(away / path.name)
    _wait(scene)
    for path in paths:
        (away / path.name).rename(path)
    return True


def restore(scene: Scene) -> None:
    """Let nothing fail any more."""
    for image, pictures in enumerate(scene.pictures if scene.photos.exists() else ()):
        path = scene.photos / f"{image:03d}.jpg"
        assert path.read_bytes() == picture_file(pictures[-1])
    shutil.rmtree(scene.folder / "away", ignore_errors=True)


_DISK = (1, 2)  # 2 if nothing can be written at all
_OTHERS = [
    Kind("another run at once", run_at_once),
    Kind("compact at once", compact_at_once),
    Kind("threshold at once", mark_at_once),
    Kind("decisions at once", decide_at_once),
    Kind("verify and status at once", read_at_once),
]
_SOURCE = [
    Kind("image changes", _change_image, (), ("unreadable", "not_found")),
    Kind("images vanish", _hide_images, (2, 3), ("not_found",)),
]
_LOCAL = [
    Kind("files may not grow", _limit_files, _DISK, ("crashed",)),
    Kind("folder denied", _deny_folder, _DISK, ("crashed",)),
]
_FULL = Kind("disk full", _fill_disk, _DISK, ("crashed",))
