"""Formats of one file: CSV, JSON lines, COCO's results, metadata of a folder, `_bulk` lines."""

import csv
import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pycocotools.coco import COCO

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.record import Mark, opened_record
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, outcomes, reasons, state
from tests.support.rows import decide, row, write_rows
from tests.support.servers import S3Server

FORMATS = ("csv", "jsonl", "coco", "opensearch")


def table(tmp_path: Path, *uris: str, **values: object) -> OutFolder:
    return write_rows(tmp_path / "out", [row(uri, **values) for uri in uris])


def test_csv_has_the_chosen_columns(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/a.jpg", "/p/b.jpg", alternatives=[{"caption": "x", "log_prob": -1.0}])
    decide(out, "/p/a.jpg", "edited", 'A "dog",\na cat — ok')
    columns = ["text", "image_uri", "alternatives", "annotated_at"]
    exported(out, "csv", to=tmp_path / "a.csv", columns=columns)
    found = pd.read_csv(tmp_path / "a.csv")
    assert list(found) == columns
    assert list(found["text"]) == ['A "dog", a cat — ok', "A picture of b."]
    assert json.loads(found["alternatives"][0]) == [{"caption": "x", "log_prob": -1.0}]
    assert found["annotated_at"][0] == "2026-01-01T00:00:00+00:00"


def test_values_that_python_cannot_hold_are_exported_as_text(tmp_path: Path) -> None:
    never, day = 253_402_300_799, 86_400
    berlin = pa.timestamp("us", "Europe/Berlin")
    labels = {
        "until": pa.array([never * 10**6, day * 10**6, None], berlin),
        "lists": pa.array([[{"at": never * 10**6}], [{"at": 0}], None],
                          pa.list_(pa.struct({"at": berlin}))),
        "days": pa.array([2**23, 1, None], pa.date32()),
        "spans": pa.array([2**62, 1, None], pa.duration("s")),
        "zone": pa.array([day, None, None], pa.timestamp("s", "Mars/Olympus")),
    }  # fmt: skip
    out = write_rows(tmp_path / "out", [row(f"/p/{n}.jpg") for n in range(3)], labels=labels)
    exported(out, "jsonl", to=tmp_path / "a.jsonl", columns=[*labels])
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [*map(json.loads, lines)] == [
        {
            "until": "9999-12-31 23:59:59.000000Z",
            "lists": [{"at": "9999-12-31 23:59:59.000000Z"}],
            "days": "24937-03-25",
            "spans": str(2**62),
            "zone": "1970-01-02 00:00:00.000Z",
        },
        {
            "until": "1970-01-02T01:00:00+01:00",
            "lists": [{"at": "1970-01-01T01:00:00+01:00"}],
            "days": "1970-01-02",
            "spans": "0:00:01",
            "zone": None,
        },
        dict.fromkeys(labels),
    ]


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/a.jpg", "/p/b.jpg")
    decide(out, "/p/a.jpg", "edited", '=HYPERLINK("https://evil.example")')
    decide(out, "/p/b.jpg", "edited", "A dog;=1+1")
    exported(out, "csv", to=tmp_path / "a.csv", columns=["text", "log_prob"])
    rows = list(csv.reader((tmp_path / "a.csv").open()))
    assert rows[1] == ['\'=HYPERLINK("https://evil.example")', "-4.0"]
    assert rows[2] == ["A dog;'=1+1", "-4.0"]


def test_jsonl_has_every_value_as_it_is(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/a.jpg")
    decide(out, "/p/a.jpg", "edited", "=A — dog")
    exported(out, "jsonl", to=tmp_path / "a.jsonl")
    (line,) = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = {"image_uri": "/p/a.jpg", "text": "=A — dog", "confidence": 0.5, "decision": "edited"}
    assert json.loads(line) == wanted


def test_paths_become_the_urls_of_a_site(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/x y/é#.jpg", "/p2/b.jpg", "tar://a/1.jpg::/p/t.tar")
    options = {"root": "/p", "base_url": "https://example.org/img/", "columns": ["image_uri"]}
    assert exported(out, "jsonl", to=tmp_path / "a.jsonl", **options) == {"write": 2, "skip": 1}
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    base = "https://example.org/img/"
    assert {json.loads(line)["image_uri"] for line in lines} == {
        f"{base}x%20y/%C3%A9%23.jpg",
        f"{base}t.tar/a/1.jpg",
    }


def test_urls_of_a_site_keep_their_queries(tmp_path: Path) -> None:
    uris = [f"http://h/a b.php?id={number}&x=%2F" for number in (1, 2)]
    uris.append("tar://1.jpg::http://h/t.tar?id=3")
    out = write_rows(tmp_path / "out", [row(uri) for uri in uris])
    options = {"root": "http://h", "base_url": "https://cdn.example", "columns": ["image_uri"]}
    exported(out, "csv", to=tmp_path / "a.csv", **options)
    assert (tmp_path / "a.csv").read_text().split() == [
        "image_uri",
        "https://cdn.example/a%20b.php?id=1&x=%2F",
        "https://cdn.example/a%20b.php?id=2&x=%2F",
        "https://cdn.example/t.tar/1.jpg?id=3",
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_the_second_export_writes_nothing_and_a_persons_file_stays(
    tmp_path: Path, form: str
) -> None:
    out, file = table(tmp_path, "/p/1.jpg", "/p/2.jpg"), tmp_path / "to" / "file"
    assert exported(out, form, to=file) == {"write": 2}
    before = state(tmp_path / "to")
    assert exported(out, form, to=file) == {"unchanged": 2}
    assert state(tmp_path / "to") == before
    decide(out, "/p/1.jpg", "edited", "A dog.")
    assert exported(out, form, to=file) == {"write": 2}
    file.write_text(file.read_text().replace("A dog", "My dog"))
    before = state(tmp_path / "to")
    decide(out, "/p/2.jpg", "edited", "A cat.")
    for dry_run in (False, True):
        with pytest.raises(UsageError, match="a person may have written it"):
            exported(out, form, to=file, dry_run=dry_run)
    assert state(tmp_path / "to") == before


def test_a_dry_run_shows_the_lines_that_change(tmp_path: Path) -> None:
    out, file = table(tmp_path, "/p/1.jpg", "/p/2.jpg"), tmp_path / "a.csv"
    options = {"to": file, "columns": ["text"]}
    exported(out, "csv", **options)
    decide(out, "/p/2.jpg", "edited", "A dog.")
    before = state(tmp_path)
    (outcome,) = outcomes(out, "csv", dry_run=True, **options)
    assert outcome.diff[2:] == ["@@ -3 +3 @@", "-A picture of 2.", "+A dog."]
    assert state(tmp_path) == before


@pytest.mark.parametrize("form", FORMATS)
def test_standard_output_has_the_same_as_a_file(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = table(tmp_path, "/p/1.jpg", "/p/2.jpg")
    exported(out, form, to=tmp_path / "file")
    capsys.readouterr()
    assert exported(out, form) == {"write": 2}
    assert capsys.readouterr().out == (tmp_path / "file").read_text()
    exported(out, form, dry_run=True)
    assert not capsys.readouterr().out


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/1.jpg")
    (Path(str(out.captions)) / "z.parquet").write_bytes(b"damaged")
    (tmp_path / "to").mkdir()
    with pytest.raises(UsageError, match="not a file of a caption table"):
        exported(out, "csv", to=tmp_path / "to" / "a.csv")
    assert not list((tmp_path / "to").iterdir())


def test_coco_reads_the_results(tmp_path: Path) -> None:
    uris = ["/p/COCO_val2014_000000391895.jpg", "/p/000000000042.jpg", "/p/dog_7.jpg", "/q/42.jpg"]
    out = table(tmp_path, *uris)
    assert reasons(out, "coco", to=tmp_path / "results.json") == {
        "dog_7": "skip no number as its name, and no column image_id",
        "42": "review image_id 42 is also that of /p/000000000042.jpg",
    }
    images = [{"id": number} for number in (42, 391895, 1)]
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": []}))
    results = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "results.json"))
    assert {each["image_id"]: each["caption"] for each in results.anns.values()} == {
        391895: "A picture of COCO_val2014_000000391895.",
        42: "A picture of 000000000042.",
    }


def test_coco_takes_the_ids_of_a_manifest(tmp_path: Path) -> None:
    rows = [row("/p/a.jpg"), row("/p/b.jpg")]
    out = write_rows(tmp_path / "out", rows, labels={"image_id": ["17", "x"]})
    assert exported(out, "coco", to=tmp_path / "a.json") == {"write": 1, "skip": 1}
    (result,) = json.loads((tmp_path / "a.json").read_text())
    assert result == {"image_id": 17, "caption": "A picture of a."}


def test_no_results_are_valid_json(tmp_path: Path) -> None:
    out = table(tmp_path, "/p/1.jpg", needs_review=True)
    assert exported(out, "coco", to=tmp_path / "a.json") == {"review": 1, "write": 0}
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_a_folder_of_images_gets_its_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    out = table(tmp_path, str(folder / "a.jpg"), str(folder / "x" / "b.jpg"))
    decide(out, str(folder / "a.jpg"), "edited", "=A dog, running")
    exported(out, "hf", to=folder, columns=["confidence"])
    assert (folder / "metadata.csv").read_text() == (
        'file_name,text,confidence\na.jpg,"=A dog, running",0.5\nx/b.jpg,A picture of b.,0.5\n'
    )
    assert exported(out, "hf", to=folder) == {"write": 2}
    assert exported(out, "hf", to=folder) == {"unchanged": 2}


@pytest.mark.parametrize("uri", ["/elsewhere/a.jpg", "s3://photos/a.jpg", "tar://a.jpg::/p/t.tar"])
def test_metadata_needs_images_in_the_folder(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UsageError, match="is not a file below /p: an ImageFolder has its images"):
        exported(table(tmp_path, uri), "hf", to="/p")


def test_bulk_lines_index_each_image_under_its_own_id(tmp_path: Path) -> None:
    uris = ["/p/a.jpg", "/p/" + "long" * 200 + ".jpg"]
    out = table(tmp_path, *uris, caption="A dog.")
    exported(out, "opensearch", to=tmp_path / "bulk", index="photos-2026")
    body = (tmp_path / "bulk").read_text()
    assert body.endswith("\n")
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0::2] == [
        {"index": {"_index": "photos-2026", "_id": hashlib.sha256(uri.encode()).hexdigest()}}
        for uri in uris
    ]
    assert [line["image_uri"] for line in lines[1::2]] == uris


def test_an_export_to_a_store_is_written_once(s3: S3Server, tmp_path: Path) -> None:
    import s3fs

    url = s3.bucket({})
    out = table(tmp_path, "/p/a.jpg")
    fs = s3fs.S3FileSystem(endpoint_url=s3.endpoint, use_listings_cache=False)
    assert exported(out, "jsonl", to=f"{url}/x/a.jsonl") == {"write": 1}
    before = fs.info(f"{url}/x/a.jsonl")
    assert exported(out, "jsonl", to=f"{url}/x/a.jsonl") == {"unchanged": 1}
    assert fs.info(f"{url}/x/a.jsonl") == before
    decide(out, "/p/a.jpg", "edited", "A dog.")
    assert exported(out, "jsonl", to=f"{url}/x/a.jsonl") == {"write": 1}
    fs.pipe_file(f"{url}/x/a.jsonl", b"mine")
    with pytest.raises(UsageError, match="a person may have written it"):
        exported(out, "jsonl", to=f"{url}/x/a.jsonl")


def on_store(s3: S3Server, local: OutFolder) -> OutFolder:
    (part,) = local.table_files()
    out = OutFolder(out_path(f"{s3.bucket({})}/out"))
    out.storage.put(Path(str(part)), out.captions / part.name)
    return out


def test_a_table_on_a_store_keeps_its_record_there(s3: S3Server, tmp_path: Path) -> None:
    out = on_store(s3, table(tmp_path, str(tmp_path / "a.jpg")))
    assert exported(out, "txt", dry_run=True) == {"write": 1}
    assert not out.storage.files(out.exports, "*")
    assert exported(out, "txt") == {"write": 1}
    decide(out, str(tmp_path / "a.jpg"), "edited", "A dog.")
    assert exported(out, "txt") == {"write": 1}
    assert exported(out, "txt") == {"unchanged": 1}
    assert (tmp_path / "a.txt").read_text() == "A dog.\n"


def test_a_text_that_two_exports_at_once_forget_is_a_persons(s3: S3Server, tmp_path: Path) -> None:
    out = on_store(s3, table(tmp_path, str(tmp_path / "a.jpg")))
    with opened_record(out, "txt", dry_run=False) as other:
        assert exported(out, "txt") == {"write": 1}
        with other.writing([Mark("/elsewhere", "digest")]):
            pass
    decide(out, str(tmp_path / "a.jpg"), "edited", "A dog.")
    assert exported(out, "txt") == {"keep": 1}
