"""Runs over containers: the same captions as for files, and the cost of failures."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import webdataset

from captioner.jobs import JobConfig, run_job
from tests.support.photographs import photograph, write_photographs
from tests.support.tables import read_table, statuses

COUNT = 24


@pytest.fixture
def job(job: JobConfig) -> JobConfig:
    """Return a job whose `source` the test replaces."""
    return replace(job, batch_size=4, partition_size=10)


def as_tar(photos: Path, path: Path) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for photo in sorted(photos.iterdir()):
            tar.add(photo, photo.name)


def as_structs(photos: Path, path: Path) -> None:
    images = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(photos.iterdir())]
    pq.write_table(pa.table({"image": images}), path, row_group_size=7)


def as_binary(photos: Path, path: Path) -> None:
    images = [photo.read_bytes() for photo in sorted(photos.iterdir())]
    pq.write_table(pa.table({"jpg": pa.array(images, pa.large_binary())}), path)


CONTAINERS: dict[str, Callable[[Path, Path], None]] = {
    "photos.tar": as_tar,
    "photos.tar.gz": as_tar,
    "struct.parquet": as_structs,
    "binary.parquet": as_binary,
}
SAME = ["image_sha256", "width", "height", "format", "status", "caption", "confidence"]


def captions(out: Path) -> list[dict[str, object]]:
    rows = read_table(out).select([*SAME, "token_log_probs", "alternatives"]).to_pylist()
    return sorted(rows, key=lambda row: str(row["image_sha256"]))


def test_the_same_photographs_have_the_same_captions_from_every_container(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", COUNT)
    run_job(job)
    expected = captions(tmp_path / "out")
    assert len({str(row["caption"]) for row in expected}) > 10
    for name, write in CONTAINERS.items():
        write(photos, tmp_path / name)
        out = tmp_path / f"out of {name}"
        report = run_job(replace(job, source=tmp_path / name, out=out))
        assert (report.exit_code, report.captioned) == (0, COUNT)
        assert captions(out) == expected
        assert not {"image_member", "image"} & set(read_table(out).column_names)


def test_an_archive_has_a_row_for_each_image_and_the_next_run_adds_new_ones(
    tmp_path: Path, job: JobConfig
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    with webdataset.TarWriter(str(shards / "0.tar")) as writer:
        for number in range(6):
            image = b"damaged" if number == 3 else photograph(number)
            writer.write({"__key__": f"k{number}", "jpg": image, "json": {"n": number}})
    job = replace(job, source=shards)
    report = run_job(job)
    assert (report.exit_code, report.statuses) == (0, {"ok": 5, "unreadable": 1})
    table = read_table(tmp_path / "out")
    assert table["image_uri"][3].as_py() == f"tar://k3.jpg::{shards}/0.tar"
    assert table["key"].to_pylist() == [f"k{n}" for n in range(6)]
    assert [json.loads(text) for text in table["json"].to_pylist()] == [{"n": n} for n in range(6)]
    assert table["status"].to_pylist() == ["ok", "ok", "ok", "unreadable", "ok", "ok"]
    assert run_job(job).images == 0
    with webdataset.TarWriter(str(shards / "1.tar")) as writer:
        writer.write({"__key__": "k6", "jpg": photograph(6)})
    report = run_job(job)
    assert (report.listed, report.already_there, report.images) == (7, 6, 1)
    assert statuses(tmp_path / "out") == {"ok": 6, "unreadable": 1}


def test_a_damaged_archive_has_a_row_that_says_so(tmp_path: Path, job: JobConfig) -> None:
    as_tar(write_photographs(tmp_path / "photos", 4), tmp_path / "a.tar")
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(data)
    torn = tmp_path / "shards" / "b.tar"
    torn.write_bytes(data[: len(data) // 4])
    report = run_job(replace(job, source=tmp_path / "shards"))
    rows = {row["image_uri"]: row for row in read_table(tmp_path / "out").to_pylist()}
    assert report.statuses["unreadable"] >= 1
    assert rows[str(torn)]["status"] == "unreadable"
    assert "cannot be read beyond byte" in rows[str(torn)]["error"]


@pytest.mark.parametrize("name", ["photos.tar", "photos.tar.gz", "struct.parquet"])
def test_a_member_that_crashes_the_captioner_costs_only_its_own_row(
    tmp_path: Path, job: JobConfig, name: str
) -> None:
    photos = write_photographs(tmp_path / "photos", 12)
    (photos / "005.jpg").write_bytes(b"ODD!")
    CONTAINERS[name](photos, tmp_path / name)
    run_job(replace(job, source=tmp_path / name))
    assert statuses(tmp_path / "out") == {"ok": 11, "crashed": 1}
    crashed = read_table(tmp_path / "out").filter(pc.field("status") == "crashed")
    (uri,) = crashed["image_uri"].to_pylist()
    assert uri in (f"tar://005.jpg::{tmp_path / name}", f"{tmp_path / name}#row=5")


def test_the_members_of_a_changed_archive_are_redone_and_missing_ones_pruned(
    tmp_path: Path, job: JobConfig
) -> None:
    photos = write_photographs(tmp_path / "photos", 6)
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("a.tar", "b.tar"):
        as_tar(photos, shards / name)
    job = replace(job, source=shards)
    run_job(job)
    before = {row["image_uri"]: row for row in read_table(tmp_path / "out").to_pylist()}
    (photos / "001.jpg").write_bytes(photograph(20))
    (photos / "004.jpg").unlink()
    as_tar(photos, shards / "b.tar")
    report = run_job(job)
    assert (report.changed, report.already_there, report.new) == (5, 6, 0)
    assert (report.vanished, report.pruned) == (1, 0)
    after = {row["image_uri"]: row for row in read_table(tmp_path / "out").to_pylist()}
    gone = f"tar://004.jpg::{shards}/b.tar"
    changed = {uri for uri in after if after[uri] != before[uri]}
    assert changed == {uri for uri in after if uri.endswith("b.tar")} - {gone}
    other = f"tar://001.jpg::{shards}/b.tar"
    assert after[other]["image_sha256"] != before[other]["image_sha256"]
    assert not {"image_member", "replaces"} & set(read_table(tmp_path / "out").column_names)
    report = run_job(replace(job, prune=True))
    assert (report.planned, report.pruned) == (0, 1)
    assert set(read_table(tmp_path / "out")["image_uri"].to_pylist()) == set(after) - {gone}


def test_the_rows_of_a_changed_parquet_file_are_redone(tmp_path: Path, job: JobConfig) -> None:
    photos = write_photographs(tmp_path / "photos", 6)
    job = replace(job, source=tmp_path / "x.parquet")
    as_structs(photos, tmp_path / "x.parquet")
    run_job(job)
    (photos / "005.jpg").unlink()
    as_structs(photos, tmp_path / "x.parquet")
    report = run_job(replace(job, prune=True))
    assert (report.changed, report.pruned, report.statuses) == (5, 1, {"ok": 5})
    assert read_table(tmp_path / "out").num_rows == 5


def test_an_archive_that_is_damaged_or_out_of_reach_loses_no_row(
    tmp_path: Path, job: JobConfig
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("a.tar", "b.tar", "c.tar"):
        as_tar(write_photographs(tmp_path / "photos", 3), shards / name)
    job = replace(job, source=shards, prune=True)
    run_job(job)
    data = (shards / "b.tar").read_bytes()
    (shards / "b.tar").write_bytes(data[: len(data) // 2])
    (shards / "c.tar").rename(tmp_path / "c.tar")
    (shards / "c.tar").symlink_to("nowhere")
    assert run_job(job).pruned == 0
    assert read_table(tmp_path / "out").num_rows == 9 + 2
    (shards / "b.tar").write_bytes(data)
    (shards / "c.tar").unlink()
    (tmp_path / "c.tar").rename(shards / "c.tar")
    assert run_job(job).pruned == 2  # the rows of the archives themselves
    assert statuses(tmp_path / "out") == {"ok": 9}
