"""What people decided holds through any order of runs, compactions, changes and exports."""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from captioner.jobs import JobConfig, run_job
from captioner.jobs.publish.marking import mark_table
from captioner.jobs.publish.review.queue import scope_of
from captioner.jobs.publish.review.sheet.importing import import_sheet, undo_import
from captioner.jobs.publish.review.sheet.write import write_sheet
from captioner.jobs.rows.decided import read_rows, row_schema
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter, as_reviews, read_reviews
from captioner.schemas.review import Review
from tests.support.exports import exported, state
from tests.support.photographs import photograph
from tests.support.rows import decide

NAMES = st.sampled_from(["a", "b", "c"])
PICTURES = st.integers(0, 3)
DECISIONS = st.sampled_from(["accepted", "edited", "rejected", "decorative"])
RUNS = st.sampled_from(
    [
        {},
        {"prune": True},
        {"beam_size": 2, "stale": "redo"},
        {"beam_size": 3, "stale": "redo"},
        {"min_confidence": 0.5},
        {"partition_size": 1},
    ]
)


class Collection(RuleBasedStateMachine):
    """A folder of photographs, its table, and a model of what was decided about them."""

    job: JobConfig

    def __init__(self) -> None:
        super().__init__()
        self.photos, self.out = Path(self.job.source), Path(self.job.out)
        for folder in (self.photos, self.out):
            shutil.rmtree(folder, ignore_errors=True)
        self.photos.mkdir()
        self.write("a", 0)
        self.table = OutFolder(out_path(self.out))
        self.decided: dict[str, list[Review]] = {}  # by image, the latest last
        self.imported: list[Review] = []
        self.written: dict[Path, str] = {}  # by people, beside the images
        self.number = 0
        self.run({})

    @rule(name=NAMES, picture=PICTURES)
    def write(self, name: str, picture: int) -> None:
        (self.photos / f"{name}.jpg").write_bytes(photograph(picture))

    @rule(name=NAMES, other=NAMES)
    def rename(self, name: str, other: str) -> None:
        path = self.photos / f"{name}.jpg"
        if path.exists() and name != other:
            path.rename(self.photos / f"{other}.jpg")

    @rule(options=RUNS)
    def run(self, options: dict[str, object]) -> None:
        run_job(replace(self.job, **options))

    @rule(threshold=st.sampled_from([None, 0.3, 0.6]))
    def mark(self, threshold: float | None) -> None:
        mark_table(self.out, threshold)

    @rule()
    def compact(self) -> None:
        compact(self.out, quiet=True)

    @rule(data=st.data(), decision=DECISIONS)
    def decide(self, data: st.DataObject, decision: str) -> None:
        uris = sorted(str(row["image_uri"]) for row in self.rows())
        self.save(data.draw(st.sampled_from(uris)), decision)

    def save(self, uri: str, decision: str) -> None:
        (row,) = (row for row in self.rows() if row["image_uri"] == uri)
        self.number += 1
        texts = {"accepted": row["caption"], "edited": f"Text {self.number}.", "decorative": ""}
        text = texts.get(decision)
        saved = decide(
            self.table,
            uri,
            decision,
            None if text is None else str(text),
            image_sha256=row["image_sha256"],
        )
        self.decided.setdefault(saved.image_uri, []).append(saved)

    @rule(data=st.data(), late=st.booleans())
    def fill_in_a_spreadsheet(self, data: st.DataObject, late: bool) -> None:
        """Write a text into one row of the spreadsheet; `late`: somebody decided meanwhile."""
        sheet = self.out / "sheet.csv"
        sheet.unlink(missing_ok=True)
        if not write_sheet(scope_of(self.table, None), sheet):
            return
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
        line = data.draw(st.sampled_from(lines))
        if late:
            self.save(line["image_uri"], "edited")
        self.number += 1
        line["text"] = f"Text {self.number}."
        with sheet.open("w", newline="") as file:
            writer = csv.DictWriter(file, line.keys())
            writer.writeheader()
            writer.writerows(lines)
        done = import_sheet(self.table, sheet, "bob")
        assert (done.saved, len(done.refused)) == ((0, 1) if late else (1, 0))
        if not late:
            (saved,) = as_reviews(read_reviews(self.table))[-1:]
            assert saved.text == line["text"]
            self.decided.setdefault(saved.image_uri, []).append(saved)
            self.imported.append(saved)

    @precondition(lambda self: self.imported)
    @rule()
    def undo_the_import(self) -> None:
        saved = self.imported.pop()
        undo_import(self.table, "bob")
        reviews = self.decided[saved.image_uri]
        if saved in reviews:
            reviews.remove(saved)

    @precondition(lambda self: any(self.decided.values()))
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        uris = sorted(uri for uri, reviews in self.decided.items() if reviews)
        undone = self.decided[data.draw(st.sampled_from(uris))].pop()
        self.imported = [each for each in self.imported if each != undone]
        ReviewWriter(self.table, "ann", "page").undo([undone])

    @rule(name=NAMES)
    def write_a_text_beside_an_image(self, name: str) -> None:
        self.number += 1
        path = self.photos / f"{name}.txt"
        self.written[path] = f"Written by hand, {self.number}."
        path.write_text(self.written[path])

    @rule(form=st.sampled_from(["txt", "jsonl"]))
    def export(self, form: str) -> None:
        to = {"to": self.out / "texts.jsonl"} if form == "jsonl" else {}
        exported(self.table, form, **to)
        before = state(self.photos), state(self.out)
        assert not exported(self.table, form, **to).get("write")
        assert (state(self.photos), state(self.out)) == before

    def teardown(self) -> None:
        self.run({})
        self.export("txt")
        self.no_file_that_a_person_wrote_has_changed()
        self.every_decision_holds()

    @invariant()
    def no_file_that_a_person_wrote_has_changed(self) -> None:
        assert {path: path.read_text() for path in self.written} == self.written

    @invariant()
    def every_decision_holds(self) -> None:
        for row in self.rows():
            review = self.expected(str(row["image_uri"]), row["image_sha256"])
            if review is None:
                assert (row["decision"], row["text"]) == (None, row["caption"])
            else:
                assert (row["decision"], row["text"]) == (review.decision, review.text)
                changed = review.image_sha256 != row["image_sha256"]
                assert row["outdated"] == row["needs_review"] == changed

    @invariant()
    def every_image_has_one_row(self) -> None:
        uris = [row["image_uri"] for row in self.rows()]
        assert len(uris) == len(set(uris))

    def expected(self, uri: str, sha256: object) -> Review | None:
        """Return the decision in force: the image's own, or that about the same bytes."""
        own = self.decided.get(uri, [])[-1:]
        others = [reviews[-1] for reviews in self.decided.values() if reviews]
        same = [each for each in others if each.image_sha256 == sha256]
        same.sort(key=lambda each: each.reviewed_at)
        if own and (own[0].image_sha256 == sha256 or not same):
            return own[0]
        return same[-1] if same else None

    def rows(self) -> Iterator[dict[str, object]]:
        for table in read_rows(self.table, row_schema(self.table)):
            yield from table.to_pylist()


@pytest.mark.slow
def test_what_people_decided_holds_whatever_happens(
    job: JobConfig, calibrated_checkpoint: Path
) -> None:
    Collection.job = replace(job, checkpoint=calibrated_checkpoint)
    run_state_machine_as_test(
        Collection,
        settings=settings(
            max_examples=8,
            stateful_step_count=14,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
