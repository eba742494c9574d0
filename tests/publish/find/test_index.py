"""The index follows the table and what people decide, whole or not at all."""

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.publish.find import database as database_module
from captioner.jobs.publish.find import reviewed
from captioner.jobs.publish.find.database import index_path
from captioner.jobs.publish.find.index import IndexUpdate, update_index
from captioner.jobs.publish.find.search import search_words
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.compaction.compact import compact
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.caption_table import CaptionRow
from tests.support.rows import decide, row, write_old_rows, write_rows
from tests.support.servers import S3Server


def update(out: OutFolder) -> IndexUpdate:
    """Update the index, and hold that its full text agrees with its rows."""
    done = update_index(out, index_path(out), quiet=True)
    with sqlite3.connect(done.index) as database:
        database.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
    return done


def found(out: OutFolder, query: str, where: str | None = None) -> list[str]:
    """Return the names of the images that an up-to-date index finds, best first."""
    update(out)
    result = search_words(index_path(out), query, where, 20)
    return [Path(image.image_uri).stem for image in result.found]


def captions(**texts: str) -> list[CaptionRow]:
    return [row(f"/{name}.jpg", caption=text) for name, text in texts.items()]


def test_an_update_reads_only_files_that_are_new_or_changed(tmp_path: Path) -> None:
    write_rows(tmp_path, captions(a="A dog."), "1")
    out = write_rows(tmp_path, captions(b="A cat.", c="A dog."), "2")
    assert (update(out).files_read, update(out).files_read) == (2, 0)
    write_rows(tmp_path, captions(d="A dog."), "3")
    write_rows(tmp_path, captions(b="A wolf.", c="A dog."), "2")
    done = update(out)
    assert (done.files_read, done.rows_read, done.images) == (2, 3, 4)
    assert found(out, "wolf") == ["b"]
    assert found(out, "cat") == []


def test_rows_that_are_gone_are_not_found(tmp_path: Path) -> None:
    write_rows(tmp_path, captions(a="A dog."), "1")
    out = write_rows(tmp_path, captions(b="A dog.", c="A dog."), "2")
    assert found(out, "dog") == ["a", "b", "c"]
    write_rows(tmp_path, captions(b="A dog."), "2")
    (out.captions / "1.parquet").unlink()
    assert found(out, "dog") == ["b"]


def test_compaction_changes_nothing_that_is_found(tmp_path: Path) -> None:
    for number in range(4):
        write_rows(tmp_path, captions(**{f"a{number}": "A dog."}), f"1-{number}")
    out = OutFolder(out_path(tmp_path))
    before = found(out, "dog")
    compact(tmp_path, quiet=True)
    done = update(out)
    assert (done.files_read, done.images) == (1, 4)
    assert found(out, "dog") == before


def test_the_latest_row_of_an_image_counts_as_long_as_it_is_there(tmp_path: Path) -> None:
    later = {"annotated_at": datetime(2026, 2, 1, tzinfo=UTC)}
    write_rows(tmp_path, captions(a="A cat."), "2")
    out = write_rows(tmp_path, [row("/a.jpg", caption="A dog.", **later)], "1")
    assert (found(out, "dog"), found(out, "cat")) == (["a"], [])
    (out.captions / "1.parquet").unlink()
    assert (found(out, "dog"), found(out, "cat")) == ([], ["a"])


def test_a_decision_rewrites_the_images_that_it_changes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reviewed, "SLICE", 2)
    texts = {f"a{n}": "A dog." for n in range(7)}
    out = write_rows(tmp_path, captions(**texts))
    for name in texts:
        decide(out, f"/{name}.jpg", "edited", "A wolf.")
    assert len(found(out, "wolf")) == 7
    with sqlite3.connect(index_path(out)) as database:
        database.execute("CREATE TABLE rewritten (uri)")
        database.execute(
            "CREATE TRIGGER noted AFTER UPDATE ON images "
            "BEGIN INSERT INTO rewritten VALUES (new.image_uri); END"
        )
    decide(out, "/a5.jpg", "edited", "A fox.")
    assert (found(out, "fox"), len(found(out, "wolf"))) == (["a5"], 6)
    with sqlite3.connect(index_path(out)) as database:
        uris = database.execute("SELECT uri FROM rewritten ORDER BY uri").fetchall()
    assert uris == [("/a5.jpg",)]


def test_what_people_decide_is_found_at_once(tmp_path: Path) -> None:
    alternatives = [{"caption": "A brown dog.", "log_prob": -5.0}]
    rows = [row(f"/{n}.jpg", caption="A dog.", alternatives=alternatives) for n in "abcd"]
    out = write_rows(tmp_path, rows)
    assert found(out, "brown dog") == ["a", "b", "c", "d"]
    decide(out, "/a.jpg", "edited", "A wolf at the sea.")
    decide(out, "/b.jpg", "rejected")
    decide(out, "/c.jpg", "decorative", "")
    assert update(out).files_read == 0
    assert found(out, "wolf") == ["a"]
    assert found(out, "brown dog") == ["d"]
    assert found(out, "wolf", "decision IS NOT NULL AND text LIKE '%sea%'") == ["a"]


def test_an_undone_decision_gives_the_caption_back(tmp_path: Path) -> None:
    alternatives = [{"caption": "A brown dog.", "log_prob": -5.0}]
    marked = {"needs_review": True, "alternatives": alternatives}
    out = write_rows(tmp_path, [row("/a.jpg", caption="A dog.", **marked)])
    review = decide(out, "/a.jpg", "edited", "A wolf.")
    assert found(out, "wolf", "NOT needs_review") == ["a"]
    ReviewWriter(out, "ann", "page").undo([review])
    assert found(out, "wolf") == []
    assert found(out, "brown dog", "needs_review") == ["a"]


def test_a_decision_follows_the_bytes_of_an_image(tmp_path: Path) -> None:
    out = write_rows(tmp_path, captions(a="A dog."), "1")
    decide(out, "/a.jpg", "edited", "A wolf.")
    write_rows(tmp_path, [row("/moved.jpg", image_sha256="sha of /a.jpg", caption="A dog.")], "2")
    assert found(out, "wolf") == ["a", "moved"]


def test_a_new_column_of_a_manifest_can_be_asked_for(tmp_path: Path) -> None:
    write_rows(tmp_path, captions(a="A dog."), "1", {"id": ["x"]})
    out = write_rows(tmp_path, captions(b="A dog."), "2", {"rowid": [7], "Label": ["b"]})
    assert found(out, "dog", "id = 'x'") == ["a"]
    write_rows(
        tmp_path,
        captions(c="A dog."),
        "3",
        {"label": ["y"], "_file": [1.5], "rank": [3], "score": [4]},
    )
    assert found(out, "dog", "rowid = 7 AND Label = 'b'") == ["b"]
    assert found(out, "dog", "_file > 1 AND rank = 3 AND score = 4") == ["c"]
    with pytest.raises(UsageError, match="such as Label"):
        found(out, "dog", "label = 'y'")  # SQLite takes it for the same column


def test_columns_of_any_type_can_be_asked_for(tmp_path: Path) -> None:
    day = datetime(2026, 1, 2, tzinfo=UTC)
    labels = {
        "day": pa.array([day.date()]),
        "at": pa.array([day], pa.timestamp("ns", "Europe/Berlin")),
        "price": pa.array([1.5]).cast(pa.decimal128(5, 2)),
        "number": pa.array([2**63], pa.uint64()),
        "took": pa.array([3], pa.duration("s")),
        "nothing": pa.nulls(1),
        "raw": pa.array([b"x"]),
    }
    out = write_rows(tmp_path, captions(a="A dog."), labels=labels)
    for condition in (
        "day = '2026-01-02'", "at >= '2026-01-02T00:00'", "price > 1.4", "number > 5",
        "nothing IS NULL", "raw IS NOT NULL", "annotated_at < '2026-01-02'",
    ):  # fmt: skip
        assert found(out, "dog", condition) == ["a"], condition
        assert found(out, "dog", f"NOT ({condition})") == [], condition


def test_a_column_may_change_its_type_if_it_does_so_everywhere(tmp_path: Path) -> None:
    out = write_rows(tmp_path, captions(a="A dog."), labels={"label": ["x"]})
    assert found(out, "dog", "label = 'x'") == ["a"]
    write_rows(tmp_path, captions(a="A dog."), labels={"label": [1]})
    assert found(out, "dog", "label = 1") == ["a"]
    write_rows(tmp_path, captions(b="A dog."), "2", {"label": ["x"]})
    with pytest.raises(UsageError, match="do not fit together"):
        update(out)
    (out.captions / "2.parquet").unlink()
    assert found(out, "dog", "label = 1") == ["a"]


def test_an_index_of_another_version_is_built_anew(tmp_path: Path) -> None:
    out = write_rows(tmp_path, captions(a="A dog."))
    update(out)
    with sqlite3.connect(index_path(out)) as database:
        database.execute("PRAGMA user_version = 999")
    assert update(out).files_read == 1


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    out = write_rows(tmp_path / "out", captions(a="A dog."))
    mine = tmp_path / "mine.sqlite"
    with sqlite3.connect(mine) as database:
        database.execute("CREATE TABLE precious (x)")
    with pytest.raises(UsageError, match="database of something else"):
        update_index(out, mine)
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match=r"damaged\.sqlite is not an index: give another file"):
        update_index(out, damaged)
    assert damaged.read_bytes() == b"no database at all" * 100
    damaged.write_bytes(b"\xff")  # SQLite would take so short a file for an empty one
    with pytest.raises(UsageError, match="is not an index"):
        update_index(out, damaged)
    assert damaged.read_bytes() == b"\xff"
    with pytest.raises(UsageError, match="give another file as --index"):
        update_index(out, tmp_path / "missing" / "index.sqlite")


def test_without_a_table_there_is_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no caption table"):
        update_index(OutFolder(out_path(tmp_path)), tmp_path / "index.sqlite")


def test_many_commands_may_index_at_once(tmp_path: Path) -> None:
    out = write_rows(tmp_path, captions(a="A dog.", b="A dog."), "1")
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(5):
            write_rows(tmp_path, captions(**{f"c{round_}": "A dog."}), f"2-{round_}")
            done = list(pool.map(lambda _: update_index(out, index_path(out), quiet=True), "1234"))
            assert {each.images for each in done} == {3 + round_}
            assert sum(each.files_read for each in done) == (2 if round_ == 0 else 1)
    assert len(found(out, "dog")) == 7


def test_an_index_in_use_for_too_long_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_rows(tmp_path, captions(a="A dog."))
    update(out)
    write_rows(tmp_path, captions(b="A dog."), "2")
    monkeypatch.setattr(database_module, "WAIT_SECONDS", 0.05)
    other = sqlite3.connect(index_path(out), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TemporaryError, match="try again later"):
        update_index(out, index_path(out), quiet=True)
    other.close()
    assert update(out).images == 2


DIE = """
import os, signal, sys
from pathlib import Path
from captioner.jobs.publish.find import index
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
index.apply_decisions = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from captioner.jobs.publish.find import database
database.CACHE_KIB = 1  # so that pages are written before the end
index.update_index(OutFolder(out_path(sys.argv[1])), Path(sys.argv[1], "index.sqlite"), quiet=True)
"""


def test_a_killed_update_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    texts = {f"a{n}": f"A dog and {n} cats." for n in range(3000)}
    out = write_rows(tmp_path, captions(**texts))
    for expected in (0, 3000):
        if expected:
            update(out)
            write_rows(tmp_path, captions(**dict.fromkeys(texts, "A wolf.")))
            decide(out, "/a1.jpg", "rejected")
        killed = subprocess.run([sys.executable, "-c", DIE, tmp_path], env={**os.environ})
        assert killed.returncode == -signal.SIGKILL
        with sqlite3.connect(index_path(out)) as database:
            is_built = database.execute("PRAGMA user_version").fetchone() != (0,)
            sql = "SELECT count(*) FROM words WHERE words MATCH 'dog'"
            assert (database.execute(sql).fetchone()[0] if is_built else 0) == expected
    assert found(out, "dog") == []
    assert update(out).images == 3000


def test_the_index_of_a_store_is_in_the_users_cache(
    store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_rows(tmp_path / "out", captions(a="A dog.", b="A cat."))
    decide(local, "/a.jpg", "edited", "A wolf.")
    files = {f: (local.root / f).read_bytes() for f in map(local.name_of, local.table_files())}
    files |= {f"reviews/{p.name}": p.read_bytes() for p in local.reviews.iterdir()}
    out = OutFolder(out_path(store.bucket(files)))
    assert (update(out).files_read, update(out).files_read) == (1, 0)
    assert found(out, "wolf") == ["a"]
    path = index_path(out)
    assert path.parent == tmp_path / "cache" / "captioner"
    changed = write_rows(tmp_path / "new", captions(a="A dog.", b="A horse."))
    (file,) = changed.table_files()
    out.storage.put(file, out.captions / file.name)
    assert found(out, "horse") == ["b"]
    assert asdict(update(out))["index"] == str(path)


def test_a_manifests_column_whose_name_the_table_took_later_can_be_searched(tmp_path: Path) -> None:
    out = write_old_rows(tmp_path, ["/a.jpg"], former=["mine"])
    write_rows(tmp_path, [row("/b.jpg", former=None)], "2")
    assert found(out, "picture", "source_former = 'mine'") == ["a"]
    with pytest.raises(UsageError, match="former works in export and review"):
        found(out, "picture", "former IS NOT NULL")
