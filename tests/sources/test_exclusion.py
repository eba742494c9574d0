"""What is left out of a source: thumbnails, previews and deleted files, and what a user names."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.exclusion import Exclusion
from captioner.jobs.sources.listing import local as local_listing
from captioner.jobs.sources.listing import s3 as s3_listing
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.sources.source import Source
from tests.support.files import read, write_memory, write_tar, write_tree, write_zip
from tests.support.inventories import version, write_inventory
from tests.support.servers import HttpServer, S3Server

pytestmark = pytest.mark.usefixtures("empty_memory")

LIBRARY = dict.fromkeys(
    (
        *("a.jpg", "trip/b.jpg", "My.photoslibrary/originals/1/c.jpeg"),
        *("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/old.jpg", "$RECYCLE.BIN/S-1-5/r.jpg"),
        *("trip/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/y.jpg", "lost+found/x.jpg"),
        *("Catalog Previews.lrdata/0/x.jpg", ".thumbnails/t.jpg", "trip/._b.jpg"),
        "My.photoslibrary/resources/derivatives/masters/1/c_4_5005_c.jpeg",
    ),
    b"x",
)
KEPT = ["My.photoslibrary/originals/1/c.jpeg", "a.jpg", "trip/b.jpg"]
SKIPPED = {
    "excluded by @eaDir": 2,
    **{
        f"excluded by {pattern}": 1
        for pattern in (
            *("#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "*.lrdata", ".thumbnails"),
            *("._*", "**/resources/derivatives/"),
        )
    },
}
ALL = SourceOptions(exclude=[""])


def leaving_out(*patterns: str) -> SourceOptions:
    return SourceOptions(exclude=patterns)


def names(source: Source, start: str = "", end: str = "") -> list[str]:
    return [uri.removeprefix(start).removesuffix(end) for uri, _ in read(source)]


@pytest.mark.parametrize("pages", [(1000, 20), (2, 20), (2, 0)])
def test_thumbnails_previews_and_deleted_files_are_left_out_everywhere(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, pages: tuple[int, int]
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", pages[0])
    monkeypatch.setattr(s3_listing, "FEW_FOLDERS", pages[1])
    local = write_tree(tmp_path / "library", LIBRARY)
    bucket = s3.bucket(LIBRARY)
    write_memory({f"/m/{name}": data for name, data in LIBRARY.items()})
    archive = write_zip(tmp_path / "x.zip", LIBRARY)
    for root, end in (
        *((str(local), ""), (bucket, ""), ("memory://m", "")),
        ("zip://", f"::{archive}"),
    ):
        source = open_source(f"{root}{end}")
        start = root if root.endswith("/") else f"{root}/"
        assert names(source, start, end) == KEPT, root
        assert source.skipped == SKIPPED, root


def test_they_are_left_out_of_the_pages_of_an_http_server(http_server: HttpServer) -> None:
    write_tree(http_server.folder, LIBRARY)
    source = open_source(http_server.url)
    assert [unquote(name) for name in names(source, f"{http_server.url}/")] == KEPT
    assert source.skipped == SKIPPED
    thumbnails = names(open_source(f"{http_server.url}/%40eaDir/*/*.jpg"))
    assert len(thumbnails) == 1


def test_they_are_left_out_of_archives_and_inventories(tmp_path: Path, s3: S3Server) -> None:
    archive = write_tar(tmp_path / "x.tar", dict(sorted(LIBRARY.items())))
    source = open_source(archive)
    assert names(source, "tar://", f"::{archive}") == KEPT
    assert source.skipped == SKIPPED
    source = open_source(write_inventory(tmp_path / "inventory", map(version, sorted(LIBRARY))))
    assert names(source, "s3://photos/") == KEPT
    by_pattern = {why: n for why, n in SKIPPED.items() if not why.startswith("excluded by .")}
    assert source.skipped == {"hidden": 2, **by_pattern}


def test_a_glob_leaves_them_out_unless_it_names_them(tmp_path: Path) -> None:
    local = write_tree(tmp_path, LIBRARY)
    assert names(open_source(f"{local}/**/*.jp*g"), f"{local}/") == KEPT
    thumbnails = open_source(f"{local}/**/@eaDir/*/*.jpg")
    assert names(thumbnails, f"{local}/") == [name for name in sorted(LIBRARY) if "@eaDir" in name]
    assert names(open_source(local / "#recycle"), f"{local}/") == ["#recycle/old.jpg"]


def test_an_empty_pattern_switches_the_default_ones_off(tmp_path: Path) -> None:
    local = write_tree(tmp_path, LIBRARY)
    source = open_source(local, ALL)
    assert len(names(source)) == len(LIBRARY) - 2
    assert source.skipped == {"hidden": 2}
    source = open_source(local, leaving_out("", "trip"))
    assert "excluded by trip" in source.skipped and "#recycle/old.jpg" in names(source, f"{local}/")


def test_what_is_left_out_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = write_tree(tmp_path, LIBRARY)
    scanned = []
    walk = local_listing._walk
    monkeypatch.setattr(
        local_listing, "_walk", lambda path, *rest: scanned.append(path) or walk(path, *rest)
    )
    read(open_source(local, leaving_out("trip")))
    folders = ["", "/My.photoslibrary", "/My.photoslibrary/originals",
               "/My.photoslibrary/originals/1", "/My.photoslibrary/resources"]  # fmt: skip
    assert scanned == [f"{local}{folder}" for folder in folders]


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("raw", ["raw/1.jpg", "x/raw/2.jpg", "y/raw"]),
        ("raw/", ["raw/1.jpg", "x/raw/2.jpg"]),
        ("/raw", ["raw/1.jpg"]),
        ("x/raw", ["x/raw/2.jpg"]),
        ("x/*.jpg", ["x/3.jpg"]),
        ("x/**/*.jpg", ["x/3.jpg", "x/raw/2.jpg"]),
        ("**/raw/*.jpg", ["raw/1.jpg", "x/raw/2.jpg"]),
        ("x/**", ["x/3.jpg", "x/raw/2.jpg"]),
        ("[12].jpg", ["raw/1.jpg", "x/raw/2.jpg"]),
        ("RAW", []),
    ],
)
def test_a_pattern_is_a_name_or_a_path_below_the_source(
    tmp_path: Path, pattern: str, left_out: list[str]
) -> None:
    files = ["raw/1.jpg", "x/3.jpg", "x/raw/2.jpg", "y/raw", "z.jpg"]
    assert [name for name in files if Exclusion([pattern]).of(name)] == left_out
    local = write_tree(tmp_path, dict.fromkeys(files, b"x"))
    options = SourceOptions(any_extension=True, exclude=[pattern])
    kept = names(open_source(local, options), f"{local}/")
    assert kept == [name for name in files if name not in left_out]


def test_a_manifest_has_what_it_names_unless_the_user_leaves_it_out(tmp_path: Path) -> None:
    uris = ["@eaDir/a.jpg", "raw/b.jpg", "https://host/r%61w/c.jpg?x=1", "s3://raw/d.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(uris))
    assert len(read(open_source(tmp_path / "list.txt"))) == 4
    source = open_source(tmp_path / "list.txt", leaving_out("raw"))
    assert names(source, f"{tmp_path}/") == ["@eaDir/a.jpg", "s3://raw/d.jpg"]
    assert source.skipped == {"excluded by raw": 2}
    assert not source.scope("https://host/raw/e.jpg") and source.scope("https://host/e.jpg")


def test_archives_and_tables_can_be_left_out(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", {"a.jpg": b"x", "b.jpg": b"x"})
    write_tar(tmp_path / "test.tar", {"c.jpg": b"x"})
    write_tree(tmp_path, {"@eaDir/train.jpg": b"x"})
    found = names(open_source(tmp_path, leaving_out("test*", "b.jpg")), "tar://")
    assert found == [f"a.jpg::{tmp_path}/train.tar"]


def test_rows_of_what_is_left_out_have_not_vanished(tmp_path: Path) -> None:
    local = write_tree(tmp_path, {"a.jpg": b"x"})
    archive = write_tar(tmp_path / "x.tar", {"a.jpg": b"x"})
    for options, expected in ((leaving_out("raw"), []), (ALL, ["raw", "@eaDir"])):
        scope = open_source(local, options).scope
        assert scope(f"{local}/gone.jpg")
        assert [n for n in ("raw", "@eaDir") if scope(f"{local}/x/{n}/1.jpg")] == expected
        scope = open_source(archive, options).scope
        assert [n for n in ("raw", "@eaDir") if scope(f"tar://{n}/1.jpg::{archive}")] == expected


def test_a_source_with_everything_left_out_says_so(tmp_path: Path) -> None:
    write_tree(tmp_path, {"raw/1.jpg": b"x"})
    with pytest.raises(UsageError, match=r"no images in .* \(skipped: 1 excluded by raw\)"):
        open_source(tmp_path, leaving_out("raw"))
