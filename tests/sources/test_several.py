"""Several sources as one: their order, columns, members and scope."""

import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.several import open_sources
from captioner.schemas.image_record import records_of
from tests.support.files import read, write_tar, write_tree
from tests.support.photographs import photograph

PHOTOS = [photograph(number) for number in range(4)]


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def kinds(tmp_path: Path) -> list[Path]:
    """A folder, an archive, a manifest and a Parquet file, with one photograph each."""
    folder = write_tree(tmp_path / "folder", {"0.jpg": PHOTOS[0]})
    archive = write_tar(tmp_path / "x.tar", {"1.jpg": PHOTOS[1]})
    write_tree(tmp_path, {"2.jpg": PHOTOS[2]})
    manifest = csv(tmp_path / "list.csv", "image_uri,label", "2.jpg,cat")
    pq.write_table(pa.table({"image": [PHOTOS[3]], "label": ["dog"]}), tmp_path / "x.parquet")
    return [folder, archive, manifest, tmp_path / "x.parquet"]


def test_sources_of_every_kind_are_one_listing_in_their_order(kinds: list[Path]) -> None:
    table = pa.Table.from_batches(open_sources(kinds).batches)
    tar, parquet = kinds[1], kinds[3]
    assert table["image_uri"].to_pylist() == [
        *(f"{kinds[0]}/0.jpg", f"tar://1.jpg::{tar}", f"{kinds[2].parent}/2.jpg"),
        f"{parquet}#row=0",
    ]
    assert table["label"].to_pylist() == [None, None, "cat", "dog"]
    assert table["key"].to_pylist() == [None, "1", None, None]
    assert None not in table["image_version"].to_pylist()
    records = records_of(table)
    assert [record.member and record.member.container for record in records] == [
        *(None, str(tar)),
        *(None, str(parquet)),
    ]
    with ImageReader(records, 10**6) as reader:
        assert [reader.read(number) for number in range(4)] == PHOTOS


def test_the_counts_of_what_is_skipped_are_added(tmp_path: Path) -> None:
    for name in "ab":
        write_tree(tmp_path / name, {"1.jpg": b"", "notes.md": b"", ".h": b""})
    source = open_sources([tmp_path / "a", tmp_path / "b"])
    assert len(read(source)) == 2
    assert source.skipped == {"without an image's extension: .md": 2, "hidden": 2}


def test_what_one_of_the_sources_would_list_is_in_scope(tmp_path: Path) -> None:
    for name in "abc":
        write_tree(tmp_path / name, {"1.jpg": b""})
    scope = open_sources([tmp_path / "a", f"{tmp_path}/b/*.jpg"]).scope
    inside = [name for name in ("a/x.jpg", "b/x.jpg", "b/c/x.jpg", "c/x.jpg")
              if scope(str(tmp_path / name))]  # fmt: skip
    assert inside == ["a/x.jpg", "b/x.jpg"]
    manifest = csv(tmp_path / "list.csv", "image_uri", "a/1.jpg")
    assert open_sources([tmp_path / "a", manifest]).scope(f"{tmp_path}/c/x.jpg")


def test_columns_have_a_type_that_holds_all_values(tmp_path: Path) -> None:
    one = csv(tmp_path / "1.csv", "image_uri,Label,id", "a.jpg,cat,007")
    rows = [{"image_uri": "b.jpg", "label": 1, "id": 7, "score": 1, "none": None}]
    two = tmp_path / "2.jsonl"
    two.write_text("".join(json.dumps(row) + "\n" for row in rows))
    three = tmp_path / "3.parquet"
    columns = {"image_uri": ["c.jpg"], "score": [0.5], "label": pa.array(["x"]).dictionary_encode()}
    pq.write_table(pa.table(columns), three)
    source = open_sources([one, two, three])
    table = pa.Table.from_batches(source.batches, source.schema)
    assert table.drop_columns(["image_uri", "image_version", "image_access"]).to_pylist() == [
        {"Label": "cat", "id": "007", "score": None, "none": None},
        {"Label": "1", "id": "7", "score": 1.0, "none": None},
        {"Label": "x", "id": None, "score": 0.5, "none": None},
    ]


def test_types_that_do_not_fit_together_are_refused_by_name(tmp_path: Path) -> None:
    one = csv(tmp_path / "1.csv", "image_uri,tags", "a.jpg,x")
    pq.write_table(pa.table({"image_uri": ["b.jpg"], "tags": [["x"]]}), tmp_path / "2.parquet")
    message = r"the column tags is list<.*> in .*2\.parquet and string in a source before it"
    with pytest.raises(UsageError, match=message):
        open_sources([one, tmp_path / "2.parquet"])


def test_each_source_must_have_images(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"1.jpg": b""})
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match=r"no images in .*/b"):
        open_sources([tmp_path / "a", tmp_path / "b"])


def test_options_hold_for_all_sources(tmp_path: Path) -> None:
    write_tree(tmp_path / "a", {"raw/1.jpg": b"", "2.jpg": b""})
    urls = csv(tmp_path / "list.tsv", "url\tn", "raw/3.jpg\t1", "4.jpg\t2")
    options = SourceOptions(exclude=["raw"], uri_column="url")
    source = open_sources([tmp_path / "a", urls], options)
    assert [Path(uri).name for uri, _ in read(source)] == ["2.jpg", "4.jpg"]
    assert source.skipped == {"excluded by raw": 2}
    assert not source.scope(f"{tmp_path}/raw/3.jpg") and source.scope(f"{tmp_path}/4.jpg")


def test_a_container_that_is_gone_costs_its_own_images_only(kinds: list[Path]) -> None:
    records = records_of(pa.Table.from_batches(open_sources(kinds).batches))
    kinds[1].unlink()
    with ImageReader(records, 10**6) as reader:
        assert reader.read(0) == PHOTOS[0]
        with pytest.raises(FetchError):
            reader.read(1)
        assert [reader.read(number) for number in (2, 3)] == PHOTOS[2:]


def test_many_files_of_a_shells_glob_are_one_source(tmp_path: Path) -> None:
    images = [write_tree(tmp_path, {f"{n:04d}.jpg": b"x"}) / f"{n:04d}.jpg" for n in range(300)]
    archives = [write_tar(tmp_path / f"{n:04d}.tar", {"1.jpg": b"x"}) for n in range(300)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        source = open_sources([*images, images[0], *archives])
        batches = list(source.batches)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    found = [uri for batch in batches for uri in batch["image_uri"].to_pylist()]
    listed = [*map(str, images), str(images[0])]
    assert found == [*listed, *(f"tar://1.jpg::{each}" for each in archives)]
    assert len(batches) < 10
    inside = [str(images[9]), f"tar://gone.jpg::{archives[9]}", f"{tmp_path}/other.jpg"]
    assert [source.scope(uri) for uri in inside] == [True, True, False]
