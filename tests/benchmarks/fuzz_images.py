"""Decode damaged copies of hostile images for some minutes: nothing but ImageErrors may come out.

A process decodes, and this one watches it: an input that kills it, takes longer than 60 seconds or
raises another error is kept in a folder. Exit code 1 if there is any.
"""

import argparse
import random
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

from captioner.errors import ImageError
from captioner.image import ImageLimits, decode_image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.support.hostile_files import hostile_images

SECONDS = 60  # of an image, at most
SIDE = 64
CURRENT = "current"  # the file that is being decoded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("findings"), help="where findings go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.keep.mkdir(exist_ok=True)
    if options.child:
        decode_for_ever(options.keep, options.seed)
    end = time.monotonic() + 60 * options.minutes
    seed = options.seed
    while time.monotonic() < end:
        seed += 1
        if death := watch(options.keep, seed, end):
            keep(options.keep, (options.keep / CURRENT).read_bytes(), death)
    findings = [path for path in options.keep.iterdir() if path.suffix == ".bin"]
    print(f"{seed - options.seed} processes, {len(findings)} findings in {options.keep}")
    return 1 if findings else 0


def watch(folder: Path, seed: int, end: float) -> str | None:
    """Run a process until it dies, stands still, or the time is over; return what was wrong."""
    command = [sys.executable, __file__, "--child", f"--seed={seed}", f"--keep={folder}"]
    current = folder / CURRENT
    current.write_bytes(b"")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.5)
            if time.time() - current.stat().st_mtime > SECONDS:
                process.kill()
                return "hang"
        if process.poll() is None:
            process.kill()
            return None
    return f"exit {process.returncode}"


def decode_for_ever(folder: Path, seed: int) -> None:
    """Decode damaged images; keep those that raise anything but an ImageError."""
    warnings.simplefilter("ignore")
    chance = random.Random(seed)
    current = folder / CURRENT
    while True:
        for _, _, data in hostile_images(500, chance.getrandbits(32)):
            data = damaged(data, chance)
            current.write_bytes(data)
            try:
                decode_image(data, SIDE, ImageLimits(max_pixels=20_000_000))
            except ImageError:
                pass
            except Exception:  # noqa: BLE001 (what is looked for)
                keep(folder, data, traceback.format_exc())


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return data with some bytes changed, most of them near its beginning."""
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(chance.choice([0, 1, 1, 2, 4, 16])):
        reach = chance.choice([len(data), min(len(data), 64), min(len(data), 400)])
        changed[chance.randrange(reach)] = chance.choice([0, 255, 127, 128, chance.randrange(256)])
    cut = chance.random() < 0.1
    return bytes(changed[: chance.randrange(len(changed)) if cut else len(changed)])


def keep(folder: Path, data: bytes, why: str) -> None:
    """Write an input, and beside it why it is kept."""
    name = f"{hash(data) & 0xFFFFFFFF:08x}"
    (folder / f"{name}.bin").write_bytes(data)
    (folder / f"{name}.txt").write_text(why)


if __name__ == "__main__":
    sys.exit(main())
