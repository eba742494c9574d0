"""Other commands at the same OUT, while a run is at work."""

import csv
from pathlib import Path

from tests.support.matrix.scene import Scene

BUSY, NO_TABLE = 75, 2


class WrongEnd(Exception):
    """A command that ended otherwise than it should."""


def _expect(scene: Scene, codes: tuple[int, ...], *arguments: object) -> int:
    code = scene.command(*arguments)
    if code not in codes:
        raise WrongEnd(f"{arguments[0]} ended with {code}: see {scene.log}")
    return code


def run_at_once(scene: Scene) -> bool:
    """Run the same job: it has to leave OUT alone, or to do all if the other one has ended."""
    codes = (0, 3, BUSY) if scene.faults else (0, BUSY)
    _expect(scene, codes, *scene.run_line())
    return True


def compact_at_once(scene: Scene) -> bool:
    _expect(scene, (0, BUSY, NO_TABLE), "compact", scene.out)
    return True


def mark_at_once(scene: Scene) -> bool:
    """Change the threshold of the table."""
    threshold = round(scene.dice.random(), 2)
    _expect(scene, (0, BUSY, NO_TABLE), "review", scene.out, "--min-confidence", threshold)
    return True


def read_at_once(scene: Scene) -> bool:
    _expect(scene, (0, BUSY, NO_TABLE), "verify", scene.out)
    _expect(scene, (0, NO_TABLE), "status", scene.out)
    return True


def decide_at_once(scene: Scene) -> bool:
    """Accept the caption of an image, by a spreadsheet."""
    sheet = scene.folder / "sheet.csv"
    sheet.unlink(missing_ok=True)
    _expect(scene, (0, NO_TABLE), "review", scene.out, "--csv", sheet)
    image = _accept_one(scene, sheet) if sheet.exists() else None
    if image is None:
        return False
    if _expect(scene, (0, 3), "review", scene.out, "--import", sheet) == 0:
        scene.imported.append(image)
    return True


def _accept_one(scene: Scene, sheet: Path) -> str | None:
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    row = scene.dice.choice(rows)
    row["decision"] = "accepted"
    with sheet.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, [*row])
        writer.writeheader()
        writer.writerow(row)
    return row["image_uri"]
