"""The rows of a table with what people decided about them."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.rows.decided import read_rows, row_schema
from captioner.jobs.rows.where import parse_where
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder
from tests.support.rows import decide, row, write_old_rows, write_rows


def rows(out: OutFolder, where: str = "", columns: list[str] | None = None) -> dict[str, dict]:
    schema = row_schema(out)
    condition = parse_where(where, schema) if where else None
    tables = read_rows(out, schema, columns and ["image_uri", *columns], condition)
    return {Path(r["image_uri"]).stem: r for table in tables for r in table.to_pylist()}


def test_a_row_has_the_text_of_a_person_or_else_the_caption(tmp_path: Path) -> None:
    marks = {"needs_review": True}
    out = write_rows(tmp_path, [row(f"/{name}.jpg", **marks) for name in "abcdef"])
    decide(out, "/a.jpg", "accepted", "A picture of a.")
    decide(out, "/b.jpg", "edited", "A dog.")
    decide(out, "/c.jpg", "rejected")
    decide(out, "/d.jpg", "decorative", "")
    decide(out, "/e.jpg", "edited", "An old picture.", image_sha256="another")
    columns = ["text", "decision", "outdated", "needs_review"]
    found = {name: [r[c] for c in columns] for name, r in rows(out, columns=columns).items()}
    assert found == {
        "a": ["A picture of a.", "accepted", False, False],
        "b": ["A dog.", "edited", False, False],
        "c": [None, "rejected", False, False],
        "d": ["", "decorative", False, False],
        "e": ["An old picture.", "edited", True, True],
        "f": ["A picture of f.", None, False, True],
    }


def test_rows_are_chosen_by_their_columns_and_by_decisions(tmp_path: Path) -> None:
    pictures = [row(f"/{n}.jpg", confidence=n / 10) for n in range(10)]
    out = write_rows(tmp_path, pictures, labels={"label": list("aabbccddee")})
    decide(out, "/7.jpg", "edited", "A dog.")
    assert set(rows(out, "confidence >= 0.7")) == {"7", "8", "9"}
    assert set(rows(out, "label = 'b' OR decision IS NOT NULL", ["caption"])) == {"2", "3", "7"}
    assert set(rows(out, "text LIKE '%dog%'", ["width"])) == {"7"}
    with pytest.raises(UsageError, match="such as label"):
        rows(out, "labels = 'b'")


def test_a_manifests_column_never_hides_what_people_decided(tmp_path: Path) -> None:
    out = write_rows(tmp_path, [row("/a.jpg")], labels={"text": ["mine"], "outdated": [7]})
    found = rows(out)["a"]
    assert (found["text"], found["source_text"]) == ("A picture of a.", "mine")
    assert (found["outdated"], found["source_outdated"]) == (False, 7)


def test_a_manifests_column_whose_name_the_table_took_later_has_another_now(
    tmp_path: Path,
) -> None:
    labels = {"former": ["mine"], "Declined": [7], "source_former": ["x"]}
    out = write_old_rows(tmp_path, ["/a.jpg"], **labels)
    former = {"caption": "A cat.", "confidence": 0.5, "captioner": "a"}
    write_rows(tmp_path, [row("/b.jpg", former=former)], "2", {"source_former": ["y"]})
    old, new = rows(out)["a"], rows(out)["b"]
    names = ("former", "source_source_former", "source_former", "declined", "source_Declined")
    assert [old[name] for name in names] == [None, "mine", "x", None, 7]
    assert [new[name] for name in names] == [former, None, "y", None, None]
    assert set(rows(out, "former IS NOT NULL")) == {"b"}
    assert set(rows(out, "former IS NULL AND source_source_former = 'mine'", ["width"])) == {"a"}


def test_a_manifests_column_of_lists_may_have_the_name_of_a_later_one_of_the_table(
    tmp_path: Path,
) -> None:
    out = write_old_rows(tmp_path, ["/a.jpg"], word_confidence=[["mine"]])
    words = [{"word": "cat", "confidence": 0.5}]
    write_rows(tmp_path, [row("/b.jpg", word_confidence=words)], "2")
    for table in (rows(out), compacted(out)):
        own = {name: each["source_word_confidence"] for name, each in table.items()}
        assert own == {"a": ["mine"], "b": None}
        assert table["a"]["word_confidence"] is None
        assert table["b"]["word_confidence"] == words


def compacted(out: OutFolder) -> dict[str, dict[str, Any]]:
    assert compact(out.root, quiet=True).files == 1
    return rows(out)


def test_compaction_gives_such_a_column_its_new_name(tmp_path: Path) -> None:
    out = write_old_rows(tmp_path, ["/a.jpg"], former=["mine"])
    former = {"caption": "A cat.", "confidence": 0.5, "captioner": "a"}
    write_rows(tmp_path, [row("/b.jpg", former=former)], "2")
    before = rows(out)
    assert compact(tmp_path, quiet=True).files == 1
    assert rows(out) == before
    (path,) = tmp_path.glob("captions/*.parquet")
    assert pq.read_table(path)["source_former"].to_pylist() == ["mine", None]


def test_each_column_of_a_manifest_has_a_name_of_its_own(tmp_path: Path) -> None:
    labels = {"Text": ["A"], "text": ["b"], "source_text": ["c"], "decision": ["d"]}
    out = write_rows(tmp_path, [row("/a.jpg")], labels=labels)
    found = rows(out)["a"]
    assert row_schema(out).names[-7:] == [
        *("source_source_Text", "source_source_source_text"),
        *("source_text", "source_decision", "text", "decision", "outdated"),
    ]
    assert [found[name] for name in row_schema(out).names[-7:-3]] == ["A", "b", "c", "d"]
    assert found["text"] == "A picture of a."
    assert set(rows(out, "source_text = 'c' AND text LIKE '%picture%'", ["width"])) == {"a"}
    assert rows(out, columns=["source_source_Text"])["a"]["source_source_Text"] == "A"


def test_files_with_different_columns_are_one_table(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg")], "1", labels={"label": ["x"]})
    out = write_rows(tmp_path, [row("/b.jpg")], "2", labels={"place": ["y"]})
    found = rows(out)
    assert [(r["label"], r["place"]) for r in found.values()] == [("x", None), (None, "y")]
    assert set(rows(out, "label IS NULL")) == {"b"}


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, [row("/a.jpg")], "1", labels={"label": ["x"]})
    out = write_rows(tmp_path, [row("/b.jpg")], "2", labels={"label": [1]})
    with pytest.raises(UsageError, match="do not fit together"):
        row_schema(out)
