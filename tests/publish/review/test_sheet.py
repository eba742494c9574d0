"""The spreadsheet of the review: written, filled in by people and Excel, and taken back."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.review.queue import Queue, scope_of
from captioner.jobs.publish.review.sheet import write
from captioner.jobs.publish.review.sheet.importing import Import, import_sheet, undo_import
from captioner.jobs.publish.review.sheet.write import write_sheet
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import as_reviews, decisions, read_reviews
from tests.support.rows import decide, row, write_rows
from tests.support.spreadsheets import HOSTILE

Cells = list[dict[str, str]]


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    """A table in two files: d (outdated, "A former text."), a, b and c are to review, in order."""
    rows = [row(f"/{n}.jpg", confidence=c, needs_review=True) for n, c in (("b", 0.2), ("a", 0.1))]
    write_rows(tmp_path / "out", rows, "1")
    alternatives = [{"caption": text, "log_prob": -5.0} for text in ("Two dogs.", "A cat.")]
    former = {"caption": "Three dogs.", "confidence": 0.2, "captioner": "tiny@0"}
    rows = [
        row("/c.jpg", confidence=0.3, needs_review=True, alternatives=alternatives, former=former),
        row("/sure.jpg", confidence=0.9, needs_review=False),
        row("/d.jpg", confidence=0.8, needs_review=False),
    ]
    out = write_rows(tmp_path / "out", rows, "2")
    decide(out, "/d.jpg", "edited", "A former text.", image_sha256="former")
    return out


@pytest.fixture
def sheet(out: OutFolder, tmp_path: Path) -> Path:
    assert write_sheet(scope_of(out, None), tmp_path / "sheet.csv") == 4
    return tmp_path / "sheet.csv"


def cells(path: Path) -> Cells:
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def fill(path: Path, changes: Mapping[str, Mapping[str, str]]) -> None:
    """Change cells of the rows with these images."""
    rows = [row | changes.get(Path(row["image_uri"]).stem, {}) for row in cells(path)]
    path.write_bytes(as_csv(rows))


def as_csv(rows: Cells, delimiter: str = ",", encoding: str = "utf-8-sig") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode(encoding)


def saved(out: OutFolder) -> dict[str, tuple[str, str | None]]:
    """Return the decisions in force, by the image's name."""
    found = as_reviews(decisions(out).reviews)
    return {Path(each.image_uri).stem: (each.decision, each.text) for each in found}


FORMER = {"d": ("edited", "A former text.")}
FILLED = {
    "a": {"text": "A dog; “wet”, with a Größe."},
    "b": {"decision": " Decorative "},
    "c": {"decision": "accepted"},
    "d": {"decision": "accepted"},
}
TAKEN = {
    "a": ("edited", "A dog; “wet”, with a Größe."),
    "b": ("decorative", ""),
    "c": ("accepted", "A picture of c."),
    "d": ("edited", "A former text."),
}


def test_the_sheet_has_what_is_to_review_in_order(sheet: Path) -> None:
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")  # or Excel takes it for another encoding
    rows = cells(sheet)
    assert [row["image_uri"] for row in rows] == ["/d.jpg", "/a.jpg", "/b.jpg", "/c.jpg"]
    assert rows[0]["text"] == "A former text."
    assert rows[3] | {"version": ""} == {
        "image_uri": "/c.jpg",
        "caption": "A picture of c.",
        "confidence": "0.300",
        "alternatives": "Three dogs. | Two dogs. | A cat.",
        "decision": "",
        "text": "A picture of c.",
        "version": "",
    }


def test_only_matching_rows_are_written_and_no_file_is_overwritten(
    out: OutFolder, sheet: Path, tmp_path: Path
) -> None:
    scope = scope_of(out, "confidence < 0.25 OR image_uri LIKE '/sure%'")
    write_sheet(scope, tmp_path / "some.csv")
    assert [row["image_uri"] for row in cells(tmp_path / "some.csv")] == ["/a.jpg", "/b.jpg"]
    with pytest.raises(UsageError, match="exists"):
        write_sheet(scope, sheet)
    with pytest.raises(UsageError, match="cannot write"):
        write_sheet(scope, tmp_path / "no folder" / "sheet.csv")


def test_a_failure_leaves_no_half_written_sheet(
    out: OutFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sheets"
    folder.mkdir()

    def fail(text: str) -> str:
        if text == "/b.jpg":
            raise OSError(28, "No space left on device")
        return text

    with monkeypatch.context() as full:
        full.setattr(write, "guarded", fail)
        with pytest.raises(UsageError, match="No space left"):
            write_sheet(scope_of(out, None), folder / "sheet.csv")
    assert list(folder.iterdir()) == []
    assert write_sheet(scope_of(out, None), folder / "sheet.csv") == 4


def test_rows_that_a_run_adds_meanwhile_do_not_prevent_a_sheet_and_changed_ones_do(
    out: OutFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_queue = write.build_queue

    def write_meanwhile(name: str) -> None:
        def build(*arguments: Any) -> Queue:
            queue = build_queue(*arguments)
            write_rows(tmp_path / "out", [row("/new.jpg")], name)
            return queue

        monkeypatch.setattr(write, "build_queue", build)

    write_meanwhile("0")
    assert write_sheet(scope_of(out, None), tmp_path / "sheet.csv") == 4
    write_meanwhile("1")
    with pytest.raises(TemporaryError, match="rewritten"):
        write_sheet(scope_of(out, None), tmp_path / "other.csv")


def test_an_untouched_sheet_decides_nothing(out: OutFolder, sheet: Path) -> None:
    assert import_sheet(out, sheet, "bob") == Import(unchanged=4)
    assert saved(out) == FORMER


def test_what_people_filled_in_is_saved_once(out: OutFolder, sheet: Path) -> None:
    fill(sheet, FILLED)
    assert import_sheet(out, sheet, "bob") == Import(saved=4)
    assert saved(out) == TAKEN
    assert import_sheet(out, sheet, "bob") == Import(unchanged=4)
    assert read_reviews(out).num_rows == 5
    last = as_reviews(read_reviews(out))[-1]
    assert (last.reviewer, last.origin, last.captioner) == ("bob", "import", "tiny@0123456789ab")


@pytest.mark.parametrize(
    "written",
    [
        lambda rows: as_csv(rows, ";"),
        lambda rows: as_csv(rows, "\t", "utf-16"),
        lambda rows: as_csv(rows, ",", "utf-8"),
        lambda rows: as_csv(rows, ";", "cp1252"),
        lambda rows: as_csv(rows).replace(b"\r\n", b"\n"),
        lambda rows: as_csv(rows[::-1]) + b",,,,,,\r\n\r\n",
        lambda rows: as_csv([{n: r[n] for n in reversed(r)} | {"notes": "x"} for r in rows]),
    ],
    ids=["semicolons", "UTF-16", "no BOM", "Windows-1252", "newlines", "sorted", "columns"],
)
def test_a_sheet_comes_back_from_any_program(
    out: OutFolder, sheet: Path, written: Callable[[Cells], bytes]
) -> None:
    fill(sheet, FILLED)
    sheet.write_bytes(written(cells(sheet)))
    assert import_sheet(out, sheet, "bob") == Import(saved=4)
    assert saved(out) == TAKEN


def test_each_row_that_does_not_fit_is_refused_by_its_line_and_the_others_are_saved(
    out: OutFolder, sheet: Path
) -> None:
    fill(sheet, {"a": {"text": "A dog."}, "b": {"decision": "yes"}, "c": {"text": " "}})
    rows = cells(sheet)
    rows[0] |= {"text": "x" * 126}
    more = [
        rows[1] | {"image_uri": "/unknown.jpg"},
        rows[1] | {"text": "A second text."},
        rows[1] | {"caption": "An edited caption."},
        rows[1] | {"image_uri": "/sure.jpg", "caption": "A picture of sure."},
    ]
    sheet.write_bytes(as_csv(rows + more))
    done = import_sheet(out, sheet, "bob")
    assert (done.saved, saved(out)) == (1, FORMER | {"a": ("edited", "A dog.")})
    reasons = {
        2: "at most 125",
        4: "'yes' is no decision",
        5: "decorative",
        6: "no image '/unknown.jpg'",
        7: "a line above",
        8: "edit the column text",
        9: "changed since",
    }
    assert [line for line, _ in done.refused] == list(reasons)
    for (_, reason), expected in zip(done.refused, reasons.values(), strict=True):
        assert expected in reason


@pytest.mark.parametrize("decision", ["rejected", "decorative"])
def test_an_edited_text_beside_a_decision_without_a_text_is_refused(
    out: OutFolder, sheet: Path, decision: str
) -> None:
    texts = {"a": "A dog.", "b": "", "c": "A picture of c.", "d": "A former text."}
    fill(sheet, {name: {"decision": decision, "text": text} for name, text in texts.items()})
    done = import_sheet(out, sheet, "bob")
    reason = f"the decision is '{decision}', but the text was edited: clear one of them"
    assert (done.saved, done.refused) == (3, [(3, reason)])
    again = import_sheet(out, sheet, "bob")
    assert (again.unchanged, again.refused) == (3, [(3, reason)])


LOST = {
    "Café.": "mac-roman",
    "März.": "mac-roman",
    "Schöne Füße.": "mac-roman",
    "The dog\u2019s ball.": "mac-roman",
    "Собака на пляже.": "cp1251",
    "Łódź, “wet”.": "cp1252",
    "日本 a dog.": "cp1252",
    "A ń.": "ascii",
    "Łódź.": "ascii",
    "A koń.": "ascii",
}


@pytest.mark.parametrize("text", LOST)
def test_a_text_that_lost_characters_is_refused_until_the_file_is_unicode(
    out: OutFolder, sheet: Path, text: str
) -> None:
    fill(sheet, {"a": {"text": text}, "c": {"decision": "accepted"}})
    whole = cells(sheet)
    damaged = as_csv(whole, ";", "utf-8").decode().encode(LOST[text], "replace")
    sheet.write_bytes(damaged)
    done = import_sheet(out, sheet, "bob")
    assert (done.saved, [line for line, _ in done.refused]) == (1, [3])
    assert "the file lost characters" in done.refused[0][1]
    assert "save it as CSV UTF-8" in done.refused[0][1]
    sheet.write_bytes(as_csv(whole, ";", "utf-8-sig"))
    assert import_sheet(out, sheet, "bob") == Import(saved=1, unchanged=3)
    assert saved(out)["a"] == ("edited", text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Un cœur à Besançon \u2013 l\u2019été, naïve… “oui”.", "cp1252"),
        ("Größe: Äpfel & Öl für 5 €, ÜBERFLÜSSIG.", "cp1252"),
        ("Rødgrød på en blå ø, Ærø.", "cp1252"),
        ("¿Dónde está el niño? Œuvre™.", "utf-8"),
        ('A sign with "Ready?" and who?', "ascii"),
    ],
)
def test_a_text_that_its_encoding_holds_is_taken(
    out: OutFolder, sheet: Path, text: str, encoding: str
) -> None:
    fill(sheet, {"a": {"text": text}})
    sheet.write_bytes(as_csv(cells(sheet), ";", encoding))
    assert import_sheet(out, sheet, "bob") == Import(saved=1, unchanged=3)
    assert saved(out)["a"] == ("edited", text)


def test_an_untouched_text_that_lost_characters_is_refused(out: OutFolder, tmp_path: Path) -> None:
    decide(out, "/a.jpg", "edited", "A koń", image_sha256="former")
    path = tmp_path / "other.csv"
    write_sheet(scope_of(out, None), path)
    path.write_bytes(path.read_text("utf-8-sig").encode("ascii", "replace"))
    done = import_sheet(out, path, "bob")
    assert [reason for _, reason in done.refused] == [
        "the file lost characters ('A ko?'): save it as CSV UTF-8"
    ]


def test_a_cell_that_is_too_long_costs_its_row(out: OutFolder, sheet: Path) -> None:
    rows = [each | {"notes": ""} for each in cells(sheet)]
    rows[1]["text"] = rows[3]["notes"] = "x" * 200_000
    rows[2]["text"] = "A dog."
    sheet.write_bytes(as_csv(rows))
    limit = csv.field_size_limit()
    reason = "a cell has 200,000 characters: is a quotation mark missing?"
    done = import_sheet(out, sheet, "bob")
    assert done == Import(saved=1, unchanged=1, refused=[(3, reason), (5, reason)])
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("first", ["sep=;\r\n", "SEP=;\n", '"sep=;"\r\n', "sep=;;;;\r\n"])
def test_a_first_line_may_name_the_separator(out: OutFolder, sheet: Path, first: str) -> None:
    fill(sheet, FILLED | {"b": {"decision": "yes"}})
    rows = [{"a,b,c,d,e,f,g,h": ""} | each for each in cells(sheet)]
    sheet.write_bytes(first.encode("utf-8-sig") + as_csv(rows, ";", "utf-8"))
    done = import_sheet(out, sheet, "bob")
    assert (done.saved, [line for line, _ in done.refused]) == (3, [5])
    assert saved(out)["a"] == TAKEN["a"]


def test_what_changed_since_the_sheet_was_written_is_refused(
    out: OutFolder, sheet: Path, tmp_path: Path
) -> None:
    fill(sheet, {name: {"text": "A dog."} for name in "abc"})
    decide(out, "/a.jpg", "edited", "Somebody's text.")
    rows = [
        row("/b.jpg", image_sha256="another", needs_review=True),
        row("/c.jpg", caption="Another caption."),
        row("/a.jpg"),
    ]
    write_rows(tmp_path / "out", rows, "1")
    write_rows(tmp_path / "out", [row("/d.jpg")], "2")
    done = import_sheet(out, sheet, "bob")
    assert [line for line, _ in done.refused] == [3, 4, 5]
    assert saved(out) == FORMER | {"a": ("edited", "Somebody's text.")}


def test_an_import_can_be_taken_back_and_then_the_one_before(out: OutFolder, sheet: Path) -> None:
    fill(sheet, {"a": {"text": "First."}})
    import_sheet(out, sheet, "bob")
    decide(out, "/x.jpg", "rejected")
    fill(sheet, {"b": {"text": "Second."}, "c": {"decision": "rejected"}})
    import_sheet(out, sheet, "bob")
    page = FORMER | {"x": ("rejected", None)}
    assert undo_import(out, "ann") == 2
    assert saved(out) == page | {"a": ("edited", "First.")}
    assert undo_import(out, "ann") == 1
    assert saved(out) == page
    assert undo_import(out, "ann") == 0
    assert import_sheet(out, sheet, "bob").saved == 3


def test_images_with_hostile_names_are_reviewed_in_a_sheet(tmp_path: Path) -> None:
    uris: Sequence[str] = [f"{text}{n}" for n, text in enumerate(HOSTILE)]
    out = write_rows(tmp_path / "out", [row(uri, caption='=A "dog";,\n.') for uri in uris])
    path = tmp_path / "sheet.csv"
    write_sheet(scope_of(out, None), path)
    assert import_sheet(out, path, "bob") == Import(unchanged=len(uris))
    path.write_bytes(as_csv([row | {"text": "-A dog."} for row in cells(path)], ";"))
    assert import_sheet(out, path, "bob") == Import(saved=len(uris))
    assert {each.text for each in as_reviews(read_reviews(out))} == {"-A dog."}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column image_uri"),
        (b"image_uri,text\r\n", "no column version"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "no column image_uri"),
        ("image_uri,text\r\n".encode("utf-16-le"), "encoding of .* is not recognised.*CSV UTF-8"),
        ("image_uri,text\r\n".encode("utf-16-be"), "encoding of .* is not recognised"),
        (b"image_uri,version,caption,decision,text,text\r\n", "more than one column text"),
    ],
)
def test_another_file_is_refused(
    out: OutFolder, tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "other.csv").write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        import_sheet(out, tmp_path / "other.csv", "bob")
    with pytest.raises(UsageError, match="cannot read"):
        import_sheet(out, tmp_path / "missing.csv", "bob")
