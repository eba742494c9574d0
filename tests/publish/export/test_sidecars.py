"""A file for each image: captions of training tools, and XMP, read back by exiftool."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.table.layout import OutFolder
from tests.support.exports import exported, reasons, state
from tests.support.photographs import write_photographs
from tests.support.rows import decide, row, write_rows

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs exiftool (libimage-exiftool-perl)"
)
CAMERA = """<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>
<!-- by a camera -->
<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>
<r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
 <r:Description r:about='uuid:1' xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Rating='5'/>
 <r:Description r:about='uuid:1' xmlns:dc='http://purl.org/dc/elements/1.1/'>
  <dc:subject><r:Bag><r:li>caf\xe9 &gt; bar</r:li></r:Bag></dc:subject>
 </r:Description>
</r:RDF>
</x:xmpmeta>
<?xpacket end='w'?>"""


def table(tmp_path: Path, *uris: object) -> OutFolder:
    return write_rows(tmp_path / "out", [row(str(uri)) for uri in uris])


def tags(path: Path) -> dict[str, object]:
    """Return what exiftool reads in a file, without what it says about the file itself."""
    done = subprocess.run(["exiftool", "-j", "-G", path], capture_output=True, check=True)
    (found,) = json.loads(done.stdout)
    return {name: value for name, value in found.items() if name.startswith("XMP:")}


def test_captions_lie_beside_their_images(tmp_path: Path) -> None:
    out = table(tmp_path, tmp_path / "a.b.jpg", tmp_path / "c.JPEG", tmp_path / "d")
    exported(out, "txt")
    assert (tmp_path / "a.b.txt").read_text() == "A picture of a.b.\n"
    assert {path.name for path in tmp_path.glob("*.txt")} == {"a.b.txt", "c.txt", "d.txt"}


def test_captions_lie_below_a_folder_as_their_images_do(tmp_path: Path) -> None:
    uris = ["s3://b/p/x/a.jpg", "s3://b/p/c.png", "s3://b/q/d.jpg", "s3://b/p/../e.jpg"]
    out = table(tmp_path, *uris, "tar://x/1.jpg::s3://b/p/t.tar", "s3://b/p/t.parquet#row=3")
    result = exported(out, "txt", to=tmp_path / "labels", root="s3://b/p")
    assert result == {"write": 4, "skip": 2}
    assert set(state(tmp_path / "labels")) == {
        *("x/a.txt", "c.txt", "t.tar/x/1.txt", "t.parquet/row=3.txt"),
    }


@pytest.mark.parametrize("is_changed", [True, False])
def test_what_a_killed_export_left_is_removed(tmp_path: Path, is_changed: bool) -> None:
    out = table(tmp_path, tmp_path / "a.jpg")
    if not is_changed:
        exported(out, "txt")
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    for number in (killed.pid, os.getpid()):
        (tmp_path / f".a.txt.{number}.unfinished").write_text("A pict")
    others = {f".b.txt.{os.getppid()}.unfinished", ".c.unfinished", "d.1.unfinished"}
    others.add(f".e.txt.{killed.pid}.unfinished")
    for name in others:
        (tmp_path / name).write_text("A person's.")
    with (tmp_path / f".e.txt.{killed.pid}.unfinished").open() as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        exported(out, "txt", dry_run=True)
        assert len(list(tmp_path.glob(".a.txt.*"))) == 2
        exported(out, "txt")
    assert {path.name for path in tmp_path.glob("*") if path.is_file()} == {"a.txt", *others}


def test_what_a_killed_export_of_one_file_left_is_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    (tmp_path / f".a.csv.{killed.pid}.unfinished").write_text("image_uri,")
    exported(table(tmp_path, tmp_path / "a.jpg"), "csv", to=tmp_path / "a.csv")
    assert [path.name for path in tmp_path.glob("*") if path.is_file()] == ["a.csv"]


def test_a_remote_image_has_nothing_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a folder with --to and --root"):
        exported(table(tmp_path, "s3://b/p/a.jpg"), "txt")


def test_images_that_would_share_a_caption_are_reported(tmp_path: Path) -> None:
    out = table(tmp_path, tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "b.jpg")
    assert reasons(out, "txt") == {"a": "review another image has the same file", "b": "write"}
    assert {path.name for path in tmp_path.glob("*.txt")} == {"b.txt"}


@needs_exiftool
def test_exiftool_reads_the_alt_text(tmp_path: Path) -> None:
    image = write_photographs(tmp_path / "photos", 1) / "000.jpg"
    out = table(tmp_path, image)
    decide(out, str(image), "edited", 'Drôle: "a" & <b> 😀')
    assert exported(out, "xmp") == {"write": 1}
    sidecar = image.with_name("000.jpg.xmp")
    assert tags(sidecar) == {"XMP:AltTextAccessibility": 'Drôle: "a" & <b> 😀'}
    before = state(image.parent)
    assert exported(out, "xmp") == {"unchanged": 1}
    assert state(image.parent) == before
    decide(out, str(image), "edited", "Un chat.")
    assert exported(out, "xmp") == {"write": 1}
    assert tags(sidecar) == {"XMP:AltTextAccessibility": "Un chat."}


@needs_exiftool
def test_nothing_of_another_tools_sidecar_is_lost(tmp_path: Path) -> None:
    sidecar = tmp_path / "a.jpg.xmp"
    sidecar.write_text(CAMERA, encoding="utf-8")
    sidecar.chmod(0o640)
    before = tags(sidecar)
    out = table(tmp_path, tmp_path / "a.jpg")
    exported(out, "xmp")
    assert tags(sidecar) == {**before, "XMP:AltTextAccessibility": "A picture of a."}
    assert before["XMP:Subject"] == "caf\xe9 > bar"
    written = sidecar.read_text(encoding="utf-8")
    start, end = written.index(' <rdf:Description rdf:about="uuid:1"'), written.index("</r:RDF>")
    assert written[:start] + written[end:] == CAMERA
    assert sidecar.stat().st_mode & 0o777 == 0o640
    decide(out, str(tmp_path / "a.jpg"), "edited", "A dog.")
    exported(out, "xmp")
    assert sidecar.read_text("utf-8") == written.replace("A picture of a.", "A dog.")


@needs_exiftool
def test_an_alt_text_by_another_tool_stays(tmp_path: Path) -> None:
    for name, option in {"a": "", "b": "-de"}.items():
        command = ["exiftool", "-o", tmp_path / f"{name}.jpg.xmp"]
        subprocess.run([*command, f"-XMP:AltTextAccessibility{option}=Mine > yours."], check=True)
    out = table(tmp_path, tmp_path / "a.jpg", tmp_path / "b.jpg")
    before = state(tmp_path)
    assert exported(out, "xmp", dry_run=True) == {"keep": 2}
    assert exported(out, "xmp") == {"keep": 2}
    assert {name: before[name] for name in before} == {
        name: value for name, value in state(tmp_path).items() if not name.startswith("out/exports")
    }


def test_a_changed_alt_text_is_a_persons(tmp_path: Path) -> None:
    out, sidecar = table(tmp_path, tmp_path / "a.jpg"), tmp_path / "a.jpg.xmp"
    exported(out, "xmp")
    sidecar.write_text(sidecar.read_text().replace("picture", "photograph"))
    decide(out, str(tmp_path / "a.jpg"), "edited", "A dog.")
    assert exported(out, "xmp") == {"keep": 1}


@pytest.mark.parametrize(
    ("others", "used"),
    [
        ({"a.jpg"}, "a.jpg.xmp"),
        ({"a.jpg", "a.xmp"}, "a.xmp"),
        ({"a.jpg", "a.xmp", "a.cr2"}, "a.jpg.xmp"),
        ({"a.jpg", "a.xmp", "a.jpg.xmp"}, "a.jpg.xmp"),
        ({"a.jpg", "a.xmp", "a.2.jpg"}, "a.jpg.xmp"),
        ({"a.jpg", "a.xmp", "a-2.jpg", "a2.jpg"}, "a.xmp"),
    ],
)
def test_adobes_name_is_used_where_it_can_only_be_this_images(
    tmp_path: Path, others: set[str], used: str
) -> None:
    for name in others:
        (tmp_path / name).write_text(CAMERA, encoding="utf-8")
    assert exported(table(tmp_path, tmp_path / "a.jpg"), "xmp") == {"write": 1}
    changed = [path.name for path in tmp_path.glob("*.*") if "AltText" in path.read_text("utf-8")]
    assert changed == [used]


def test_a_folder_with_adobes_sidecars_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, listed, listing = tmp_path / "photos", list[Path](), Path.iterdir
    photos.mkdir()
    for name in "abc":
        (photos / f"{name}.xmp").write_text(CAMERA, encoding="utf-8")
    out = table(tmp_path, *(photos / f"{name}.jpg" for name in "abc"))
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or listing(path))
    assert exported(out, "xmp") == {"write": 3}
    assert listed.count(photos) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no XML",
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        b"<!DOCTYPE x [<!ENTITY e '<a/>'>]>" + CAMERA.partition("-->")[2].encode(),
        b"<r:RDF xmlns:r='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/>",
        CAMERA.encode("utf-16"),
        CAMERA.replace("\ufeff", "").encode("latin-1"),
    ],
)
def test_a_sidecar_that_cannot_be_merged_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg.xmp").write_bytes(content)
    assert exported(table(tmp_path, tmp_path / "a.jpg"), "xmp") == {"review": 1}
    assert (tmp_path / "a.jpg.xmp").read_bytes() == content
