"""The index of hashes: what it finds in the table, in the log, and in parts of this worker."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.pipeline import hash_index
from captioner.jobs.pipeline.hash_index import (
    HashIndex,
    HashLog,
    first_digits,
    index_table,
    joined_digits,
    prefix_of,
    prefixes_of,
)
from captioner.jobs.pipeline.known_captions import KnownCaptions
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.schemas.caption_table import CaptionRow, Status, file_metadata, rows_to_table

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run_of(tmp_path: Path) -> RunFolder:
    run = OutFolder(tmp_path).new_run()
    run.create()
    return run


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_part(run: RunFolder, name: str, numbers: range, **values: Any) -> None:
    """Write a file of the table with the captions "0", "1" ... of images with these numbers."""
    origin = {"captioner": "me", "run_id": "run", "status": Status.OK, **values}
    lines = [
        CaptionRow(
            f"/{n}", None, annotated_at=NOW, image_sha256=sha256(n), caption=str(n), **origin
        )
        for n in numbers
    ]
    no_columns = pa.table({"number": list(numbers)})
    pq.write_table(rows_to_table(lines, no_columns, file_metadata({}, None)), run.part(name), 700)


def found(known: KnownCaptions, numbers: range) -> list[str | None]:
    values = (known.find(sha256(number)) for number in numbers)
    return [value and value["caption"] for value in values]


def test_the_first_bytes_of_hashes_are_numbers() -> None:
    hashes = [sha256(number) for number in range(100)]
    expected = [int.from_bytes(bytes.fromhex(text)[:8]) for text in hashes]
    assert [prefix_of(text) for text in hashes] == expected
    assert prefixes_of(first_digits(hashes)).tolist() == expected
    for array in (pa.array(hashes), pa.array(hashes, pa.large_string())):
        assert joined_digits(array) == first_digits(hashes)
        assert joined_digits(array.slice(7, 9)) == first_digits(hashes[7:16])


@pytest.mark.parametrize("block", [100, 1000, 10_000])
def test_every_caption_of_the_table_is_found_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(hash_index, "BLOCK", block)
    run = run_of(tmp_path)
    write_part(run, "a", range(2000))
    write_part(run, "b", range(2000, 2500))
    write_part(run, "c", range(3000, 3010), captioner="another")
    write_part(run, "d", range(4000, 4010), status=Status.CRASHED)
    index_table(run, "me", run.scratch)
    assert (len(list(run.known.glob("*.prefixes.npy"))) > 1) == (block < 2500)
    known = KnownCaptions(run, "me")
    known.refresh()
    sample = range(0, 2500, 7)
    assert found(known, sample) == [str(n) for n in sample]
    assert found(known, range(2500, 4500)) == [None] * 2000


@pytest.mark.parametrize(("block", "recent"), [(45, 1000), (1000, 25), (95, 15), (1000, 1000)])
def test_parts_that_are_committed_while_the_index_is_open_are_found_by_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, recent: int
) -> None:
    monkeypatch.setattr(hash_index, "BLOCK", block)
    monkeypatch.setattr(hash_index, "RECENT", recent)
    run = run_of(tmp_path)
    index_table(run, "me", run.scratch)
    log, index, late = HashLog(run), HashIndex(run), HashIndex(run)
    for part in range(20):
        digits = first_digits([sha256(n) for n in range(part * 10, part * 10 + 10)])
        log.add(run.part(f"{part}"), digits)
        index.refresh()
        assert list(index.files_of(sha256(part * 10 + 5))) == [run.part(f"{part}")]
        assert list(index.files_of(sha256(0))) == [run.part("0")]
        assert not list(index.files_of(sha256(part * 10 + 10)))
    late.refresh()
    for number in range(200):
        assert list(late.files_of(sha256(number))) == [run.part(f"{number // 10}")]


def test_half_a_line_of_the_log_is_read_once_it_is_complete(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    index_table(run, "me", run.scratch)
    index = HashIndex(run)
    log = run.known / "000000.log"
    log.write_text(f"captions/a.parquet {sha256(1)[:16]}\ncaptions/b.par")
    index.refresh()
    assert [len(list(index.files_of(sha256(n)))) for n in (1, 2)] == [1, 0]
    with log.open("a") as file:
        file.write(f"quet {sha256(2)[:16]}\n")
    index.refresh()
    assert list(index.files_of(sha256(2))) == [tmp_path / "captions" / "b.parquet"]


def test_a_worker_finds_what_it_has_committed_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_index, "RECENT", 15)
    run = run_of(tmp_path)
    known = KnownCaptions(run, "me")
    for part in range(4):
        numbers = range(part * 10, part * 10 + 10)
        write_part(run, f"{part}", numbers)
        known.add(run.part(f"{part}"), first_digits([sha256(n) for n in numbers]))
    assert found(known, range(41)) == [*map(str, range(40)), None]


def test_a_worker_without_an_index_knows_nothing(tmp_path: Path) -> None:
    known = KnownCaptions(run_of(tmp_path), "me")
    known.refresh()
    assert found(known, range(3)) == [None] * 3
