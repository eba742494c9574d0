"""What a table must be after faults: the rows of an undisturbed run, each once and whole."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.support.matrix.scene import Scene, picture_file

TOLERANCE = 0.001  # of a confidence
COLUMNS = ["image_uri", "status", "caption", "confidence", "image_sha256", "former", "error"]
LOST, DOUBLED, HALF, WRONG = "lost", "doubled", "half-written", "wrong"
_SHOWN = re.compile(r'^  File "([^"]+)"', re.MULTILINE)  # in tracebacks, faulthandler\'s, too


@dataclass
class Verdict:
    """What is wrong with a table: how often, by kind, and examples; statuses other than ok."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def blame(self, kind: str, example: str, count: int = 1) -> None:
        if count:
            self.counts[kind] += count
            self.examples.append(f"{kind}: {example}")


class Oracle:
    """The rows of an undisturbed run, by the hash of the picture.

    In a job with a second captioner, a row may be the one of either run.
    """

    def __init__(self, pictures: int, *tables: Path) -> None:
        files = map(picture_file, range(pictures))
        self.pictures = {hashlib.sha256(f).hexdigest(): number for number, f in enumerate(files)}
        self.right: list[Mapping[str, Mapping[str, Any]]] = []
        for table in tables:
            rows = [row for path in table.glob("*.parquet") for row in _rows(path)]
            self.right.append({row["image_sha256"]: row for row in rows})
            assert self.right[-1].keys() == self.pictures.keys()

    def judge(self, scene: Scene, statuses: Collection[str], *, is_complete: bool) -> Verdict:
        """Judge the table of a scene, in which an image may have one of these statuses.

        The last verdict `is_complete`: all images have their present caption.
        """
        verdict = Verdict()
        rows = _table(scene, verdict)
        count = Counter(row["image_uri"] for row in rows)
        verdict.blame(DOUBLED, str(count.most_common(2)), sum(count.values()) - len(count))
        for row in rows:
            self._judge_row(scene, row, {*statuses}, verdict, is_complete)
        return verdict

    def missing(self, scene: Scene) -> set[int]:
        """Return the numbers of the images without a row."""
        return {*range(len(scene.pictures))} - {_number(row) for row in _table(scene, Verdict())}

    def _judge_row(
        self,
        scene: Scene,
        row: Mapping[str, Any],
        statuses: set[str],
        verdict: Verdict,
        is_complete: bool,
    ) -> None:
        if row["status"] != "ok":
            verdict.failed[row["status"]] += 1
            if row["status"] not in statuses:
                verdict.blame(WRONG, f"{row['image_uri']}: {row['status']}, {row['error']}")
            return
        shown = scene.pictures[_number(row)]
        picture = self.pictures.get(row["image_sha256"])
        if picture not in (shown[-1:] if is_complete else shown):
            verdict.blame(WRONG, f"{row['image_uri']} has picture {picture} of {shown}")
        elif not self._is_right(scene, row, is_complete):
            verdict.blame(WRONG, f"{row}")

    def _is_right(self, scene: Scene, row: Mapping[str, Any], is_complete: bool) -> bool:
        tables = self.right[1:] if scene.second else self.right[:1]
        if scene.second and not is_complete:
            tables = self.right
        return any(_are_same(row, table[row["image_sha256"]]) for table in tables)


def _are_same(row: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    former, right_former = row["former"] or {}, right["former"] or {}
    return (
        row["caption"] == right["caption"]
        and abs(row["confidence"] - right["confidence"]) <= TOLERANCE
        and former.get("caption") == right_former.get("caption")
    )


def _number(row: Mapping[str, Any]) -> int:
    return int(Path(row["image_uri"]).stem)


def _table(scene: Scene, verdict: Verdict) -> list[dict[str, Any]]:
    rows = []
    for path in files_of(scene, "captions/*"):
        try:
            with scene.files.open(path, "rb") as file:
                rows += _rows(file)
        except Exception as error:  # noqa: BLE001 (whatever it is, nobody can read the file)
            verdict.blame(HALF, f"{path}: {error!r}")
    return rows


def _rows(file: Any) -> list[dict[str, Any]]:
    with pq.ParquetFile(file, page_checksum_verification=True) as opened:
        table = opened.read()
    rows: list[dict[str, Any]] = table.select(COLUMNS).to_pylist()
    return rows


def files_of(scene: Scene, pattern: str) -> list[str]:
    """Return the files and folders of OUT that match a pattern."""
    scene.files.invalidate_cache()
    found: list[str] = scene.files.glob(f"{scene.out.removeprefix('s3://')}/{pattern}")
    return sorted(found)


def half_written_records(scene: Scene) -> list[str]:
    """Return the reports and decisions that cannot be read."""
    bad = []
    for path in (*files_of(scene, "runs/*/report.json"), *files_of(scene, "reviews/*.jsonl")):
        text = scene.files.cat_file(path).decode()
        for part in text.splitlines() if path.endswith("l") else [text]:
            try:
                json.loads(part)
            except ValueError:
                bad.append(path)
    return bad


def lost_decisions(scene: Scene) -> list[str]:
    """Return the images whose decision was saved and is not there any more."""
    saved = "".join(scene.files.cat_file(p).decode() for p in files_of(scene, "reviews/*.jsonl"))
    return [image for image in scene.imported if image not in saved]


def leftovers(scene: Scene) -> list[str]:
    """Return what unfinished work has left in OUT and in the folder for temporary files."""
    patterns = ("runs/*/scratch", "runs/*/replacements/*", "**/*.unfinished", "runs/.swap.json")
    below = [path for pattern in patterns for path in files_of(scene, pattern)]
    return [*below, *(str(path) for path in scene.temporary.iterdir())]


def traceback_in(log: Path) -> str | None:
    """Return the end of what a command said, if it shows code to its user, other than Python's."""
    text = log.read_text(errors="replace")
    shown = [path for path in _SHOWN.findall(text) if not path.endswith("resource_tracker.py")]
    return text[-1500:] if shown else None
