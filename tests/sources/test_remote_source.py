"""Sources by URL, on real stores: an S3 server, an HTTP server, zip archives, fsspec's memory."""

import io
import os
import tarfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from captioner.jobs.errors import TemporaryError, UsageError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.sources import folders as source_module
from captioner.jobs.sources.listing import remote as remote_listing
from captioner.jobs.sources.listing import s3 as s3_listing
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.options import SourceOptions
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.uris import info_version
from tests.support.files import read, uris, write_memory, write_tree, write_zip
from tests.support.photographs import photograph, write_photographs
from tests.support.servers import HttpServer, S3Server

pytestmark = pytest.mark.usefixtures("empty_memory")

LIMIT = 10**6
PHOTOGRAPHS = {
    f"{folder}{n:03d}.jpg": photograph(n)
    for n, folder in enumerate(["", "", "a/", "a/b/", "a b/", "ü/"])
}
NAMES = sorted(PHOTOGRAPHS)
ODD_NAMES = ["a b", "p%20q", "h#1", "q?x=1", "ü", "c+d", "s[1]", "*", "e&f=<>", "back\\s"]
ODD_ON_S3 = ["a//b", "u::1"]


# The same images, wherever they are


def test_the_same_photographs_have_the_same_names_order_and_bytes_everywhere(
    tmp_path: Path, s3: S3Server, http_server: HttpServer
) -> None:
    local = write_tree(tmp_path / "photos", PHOTOGRAPHS)
    bucket = s3.bucket({f"p/{name}": data for name, data in PHOTOGRAPHS.items()})
    archive = write_zip(tmp_path / "x.zip", PHOTOGRAPHS)
    write_memory({f"/m/{name}": data for name, data in PHOTOGRAPHS.items()})
    write_tree(http_server.folder, PHOTOGRAPHS)
    (http_server.folder / "list.txt").write_text("\n".join(map(quote, NAMES)))
    sources = {
        str(local): f"{local}/",
        f"{local}/**/*.jpg": f"{local}/",
        f"{bucket}/p": f"{bucket}/p/",
        f"{bucket}/p/": f"{bucket}/p/",
        f"{bucket}/p/**/*.jpg": f"{bucket}/p/",
        "memory://m": "memory://m/",
        "memory://m/**": "memory://m/",
        f"{http_server.url}/list.txt": f"{http_server.url}/",
        f"zip://**::{archive}": "zip://",
        f"zip://::{archive}": "zip://",
    }
    for source, start in sources.items():
        found = uris(source)
        names = [unquote(uri.removeprefix(start).partition("::")[0]) for uri in found]
        assert names == NAMES, source
        assert [fetch(uri, LIMIT) for uri in found] == [PHOTOGRAPHS[name] for name in names]


def test_the_folders_of_an_http_server_are_listed_by_their_pages(http_server: HttpServer) -> None:
    write_tree(http_server.folder, PHOTOGRAPHS | {"b/.h.jpg": b"", "b/n.md": b""})
    source = open_source(http_server.url)
    found = [uri for uri, _ in read(source)]
    assert found == sorted(f"{http_server.url}/{quote(name)}" for name in NAMES)
    assert source.skipped == {"hidden": 1, "without an image's extension: .md": 1}
    assert uris(f"{http_server.url}/*/*.jpg") == [u for u in found if u.count("/") == 4]


@pytest.mark.parametrize("store", ["s3", "memory", "zip"])
def test_odd_names_survive_from_listing_to_bytes(tmp_path: Path, s3: S3Server, store: str) -> None:
    names = [*ODD_NAMES, *(ODD_ON_S3 if store == "s3" else ())]
    files = {f"d/{name}.jpg": name.encode() for name in names}
    if store == "s3":
        source = f"{s3.bucket(files)}/d"
    elif store == "memory":
        write_memory({f"/{name}": data for name, data in files.items()})
        source = "memory://d"
    else:
        source = f"zip://d::{write_zip(tmp_path / 'a b#%20[1].zip', files)}"
    found = uris(source)
    assert sorted(fetch(uri, LIMIT) for uri in found) == sorted(files.values())
    for uri in found:
        assert uris(uri) == [uri]  # as SOURCE, too


def test_a_local_archive_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(tmp_path / "x y.zip", {"a.jpg": b"bytes"})
    monkeypatch.chdir(tmp_path)
    url = (tmp_path / "x y.zip").as_uri()
    for source in ("zip://*::x y.zip", "zip://a.jpg::./x y.zip", f"zip://::{url}"):
        assert uris(source) == [f"zip://a.jpg::{tmp_path}/x y.zip"]


def test_an_archive_on_a_remote_store_is_read(tmp_path: Path, s3: S3Server) -> None:
    archive = write_zip(tmp_path / "x.zip", PHOTOGRAPHS)
    bucket = s3.bucket({"d/x.zip": archive.read_bytes()})
    found = uris(f"zip://a/**::{bucket}/d/x.zip")
    assert found == [f"zip://{name}::{bucket}/d/x.zip" for name in NAMES if name.startswith("a/")]
    assert fetch(found[0], LIMIT) == PHOTOGRAPHS["a/002.jpg"]


# What is skipped, and in which order


FILES = dict.fromkeys(
    (
        *(".hidden.jpg", ".cache/1.jpg", ".cache/2.jpg", "a/.h/3.jpg", "a.jpg", "a/1.jpg"),
        *("a/c/2.png", "a-b/1.JPG", "notes.txt", "b/list.csv", "b/z.jpg", "b.d/k.jpg"),
    ),
    b"x",
)
FOUND = ["a-b/1.JPG", "a.jpg", "a/1.jpg", "a/c/2.png", "b.d/k.jpg", "b/z.jpg"]


@pytest.mark.parametrize("pages", [(1000, 20), (2, 20), (2, 0), (5, 1)])
def test_order_and_counts_are_those_of_a_local_directory(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, pages: tuple[int, int]
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", pages[0])
    monkeypatch.setattr(s3_listing, "FEW_FOLDERS", pages[1])
    bucket = s3.bucket(FILES | {"a/": b"", "empty/": b"", "b.jpg/": b""})
    write_memory({f"/m/{name}": data for name, data in FILES.items()})
    archive = write_zip(tmp_path / "x.zip", FILES)
    local = write_tree(tmp_path / "local", FILES)
    skipped = {"hidden": 3, "without an image's extension: .txt": 1, "manifests": 1}
    for root, container in (
        (str(local), ""),
        (bucket, ""),
        ("memory://m", ""),
        ("zip://", f"::{archive}"),
    ):
        source = open_source(root + container)
        top = root if root.endswith("/") else f"{root}/"
        assert [uri for uri, _ in read(source)] == [f"{top}{name}{container}" for name in FOUND]
        assert source.skipped == skipped, root


@pytest.mark.parametrize("pages", [(1000, 20), (2, 20)])
@pytest.mark.parametrize(
    ("pattern", "expected", "skipped"),
    [
        ("*", ["a.jpg"], {"without an image's extension: .txt": 1}),
        ("*/*.jpg", ["a/1.jpg", "b.d/k.jpg", "b/z.jpg"], {}),
        ("a*/**/[12].*", ["a-b/1.JPG", "a/1.jpg", "a/c/2.png"], {}),
        ("**/c/*", ["a/c/2.png"], {}),
        ("**/.h/*", ["a/.h/3.jpg"], {}),
        (".*/*.jpg", [".cache/1.jpg", ".cache/2.jpg"], {}),
        ("?/[!a-y].jpg", ["a/1.jpg", "b/z.jpg"], {}),
        ("b/*", ["b/z.jpg"], {"manifests": 1}),
        ("**", FOUND, {"without an image's extension: .txt": 1, "manifests": 1}),
    ],
)
def test_a_glob_finds_the_same_locally_and_remotely(
    tmp_path: Path,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    pages: tuple[int, int],
    pattern: str,
    expected: list[str],
    skipped: dict[str, int],
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", pages[0])
    roots = [str(write_tree(tmp_path, FILES)), s3.bucket(FILES), "memory://g"]
    write_memory({f"/g/{name}": data for name, data in FILES.items()})
    for root in roots:
        source = open_source(f"{root}/{pattern}")
        assert [uri for uri, _ in read(source)] == [f"{root}/{name}" for name in expected], root
        assert source.skipped == skipped


def test_a_glob_of_fixed_depth_does_not_list_deeper_folders(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket(FILES)
    asked = []
    pages = s3_listing._pages
    monkeypatch.setattr(
        s3_listing,
        "_pages",
        lambda fs, bucket, top, prefix, **rest: (
            asked.append(prefix) or pages(fs, bucket, top, prefix, **rest)
        ),
    )
    uris(f"{bucket}/b*/*.jpg")
    assert sorted(asked) == ["b", "b.d/", "b/"]


def test_folders_that_may_not_be_listed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    write_memory({"/m/a.jpg": "x", "/m/secret/b.jpg": "x"})
    ls = MemoryFileSystem.ls

    def deny(fs: MemoryFileSystem, path: str, **options: Any) -> Any:
        if "secret" in path:
            raise PermissionError(path)
        return ls(fs, path, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", deny)
    source = open_source("memory://m")
    assert len(read(source)) == 1
    assert source.skipped == {"unreadable folders": 1}


def test_a_page_is_listed_without_its_dead_links(http_server: HttpServer) -> None:
    links = "".join(f'<a href="{name}">x</a>' for name in ("gone/", "./", "../", "a.jpg", "?C=N"))
    (http_server.folder / "index.html").write_text(links)
    source = open_source(f"{http_server.url}/")
    assert [uri for uri, _ in read(source)] == [f"{http_server.url}/a.jpg"]
    assert source.skipped == {"unreadable folders": 1, "without an image's extension": 1}
    with pytest.raises(UsageError, match=r"cannot list http://.*/gone"):
        open_source(f"{http_server.url}/gone")


def test_names_that_no_url_can_hold_are_counted(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", {"a::b.jpg": b"x", "c.jpg": b"x"})
    source = open_source(f"zip://::{archive}")
    assert len(read(source)) == 1
    assert source.skipped == {"names that no URL can hold": 1}


@pytest.mark.parametrize("few_folders", [20, 0])
def test_folders_in_a_bucket_may_have_no_name(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, few_folders: int
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", 2)
    monkeypatch.setattr(s3_listing, "FEW_FOLDERS", few_folders)
    names = ["//.h/3.jpg", "//a.jpg", "/b//c.jpg", "d.jpg"]
    bucket = s3.bucket(dict.fromkeys(names, b"x"))
    assert uris(bucket) == [f"{bucket}/{name}" for name in names[1:]]


# Streams


@pytest.mark.parametrize("folders", [1, 10])
def test_images_come_before_the_bucket_is_listed_to_its_end(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, folders: int
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", 2)
    monkeypatch.setattr(remote_listing, "PAGES_AHEAD", 2)
    monkeypatch.setattr(remote_listing, "LISTERS", 2)
    monkeypatch.setattr(source_module, "BATCH_ROWS", 4)
    names = [f"{n % folders}/{n:03d}.jpg" for n in range(100)]
    bucket = s3.bucket(dict.fromkeys(names, b"x"))
    pages = []
    entries = s3_listing._entries
    monkeypatch.setattr(s3_listing, "_entries", lambda *given: pages.append(1) or entries(*given))
    batches = open_source(bucket).batches
    assert next(batches).num_rows == 4
    batches.close()  # type: ignore[attr-defined]
    assert len(pages) < 20
    assert uris(bucket) == [f"{bucket}/{name}" for name in sorted(names)]
    assert len(pages) > 50


def test_several_prefixes_are_listed_at_the_same_time(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_listing, "PAGE_KEYS", 3)
    bucket = s3.bucket({f"{n}/{k}.jpg": b"x" for n in range(3) for k in range(3)})
    together = threading.Barrier(3, timeout=30)
    pages = s3_listing._pages

    def wait(fs: Any, bucket: str, top: str, prefix: str, delimiter: str) -> Any:
        if prefix and not delimiter:
            together.wait()
        yield from pages(fs, bucket, top, prefix, delimiter)

    monkeypatch.setattr(s3_listing, "_pages", wait)
    assert len(uris(bucket)) == 9


# Versions


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc-1"', "size": 3, "LastModified": 1}, "abc-1"),
        ({"ETag": 'W/"abc"'}, "abc"),
        ({"etag": "CK=="}, "CK=="),
        ({"size": 3, "mtime": 1.5, "created": 2.5}, "1.5-3"),
        ({"size": 3, "Last-Modified": "Mon, 01 Jan"}, "Mon, 01 Jan-3"),
        ({"size": 3, "CRC": 255, "date_time": (2020, 1, 1, 0, 0, 0)}, "000000ff-3"),
        ({"size": 3}, None),
    ],
)
def test_the_version_is_the_tag_of_the_content_or_its_time_and_size(
    info: dict[str, Any], version: str | None
) -> None:
    assert info_version(info) == version


def test_the_version_changes_with_the_remote_file(
    tmp_path: Path, s3: S3Server, http_server: HttpServer
) -> None:
    for data in (b"one", b"two"):
        bucket = s3.bucket({"a.jpg": data})
        write_memory({"/m/a.jpg": data})
        write_zip(tmp_path / "x.zip", {"a.jpg": data})
        (http_server.folder / "a.jpg").write_bytes(data)
        os.utime(http_server.folder / "a.jpg", (len(data), data[0] * 1000))
        configure(s3.options)  # as at the start of each run
        versions = [
            read(open_source(source))[0][1]
            for source in (
                bucket, f"{bucket}/a.jpg", "memory://m", f"zip://::{tmp_path}/x.zip",
                f"{http_server.url}/a.jpg",
            )
        ]  # fmt: skip
        assert None not in versions
        if data == b"one":
            former = versions
    assert versions[0] == versions[1]
    assert all(one != other for one, other in zip(former, versions, strict=True))


def test_a_column_image_version_is_the_version(tmp_path: Path) -> None:
    write_photographs(tmp_path, 2)
    text = (
        "image_uri,image_version,id\n000.jpg,v1,1\n001.jpg,,2\ns3://b/a.jpg,v2,3\ns3://b/b.jpg,,4\n"
    )
    (tmp_path / "list.csv").write_text(text)
    source = open_source(tmp_path / "list.csv")
    assert source.schema.names == ["image_uri", "image_version", "image_access", "id"]
    first, second, *others = [version for _, version in read(source)]
    assert (first, *others) == ("v1", "v2", None)
    assert second == read(open_source(tmp_path / "001.jpg"))[0][1]
    (tmp_path / "list.jsonl").write_text('{"image_uri": "a.jpg", "image_version": 1}')
    with pytest.raises(UsageError, match="column image_version must hold text, not int64"):
        open_source(tmp_path / "list.jsonl")


# Errors


def test_a_remote_source_that_is_not_there_is_an_error(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket({"a.md": b"", ".git/x.jpg": b""})
    with pytest.raises(UsageError, match=r"no images in s3://.* 1 hidden, 1 without an image"):
        open_source(bucket)
    for source in (f"{bucket}/none", f"{bucket}/none.jpg", f"zip://a.jpg::{tmp_path}/x.zip"):
        with pytest.raises(UsageError, match=r"does not exist|cannot list"):
            open_source(source)
    for source in ("s3://no-such-bucket-here", "s3://no-such-bucket-here/**"):
        with pytest.raises(UsageError, match=r"s3://no-such-bucket-here.* does not exist"):
            open_source(source)
    with pytest.raises(UsageError, match="neither an image nor a manifest"):
        open_source(f"{bucket}/a.md")


def test_a_file_in_a_bucket_that_may_not_be_listed_is_read(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("1.jpg"))
    files = {
        "a.jpg": b"",
        "x.tar": archive.getvalue(),
        "list.csv": b"image_uri\na.jpg\n",
        "0a": b"",
    }
    bucket = s3.bucket(files | {"folder/b.jpg": b""})
    call = s3fs.S3FileSystem._call_s3

    def denied(*_arguments: Any, **_options: Any) -> Any:
        raise PermissionError("Access Denied")

    async def without_lists(fs: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method.startswith("list"):
            denied()
        return await call(fs, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_iterdir", denied)
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", without_lists)
    found = {name: uris(f"{bucket}/{name}") for name in files if name != "0a"}
    assert found == {
        "a.jpg": [f"{bucket}/a.jpg"],
        "x.tar": [f"tar://1.jpg::{bucket}/x.tar"],
        "list.csv": [f"{bucket}/a.jpg"],
    }
    (batch,) = open_source(f"{bucket}/0a", SourceOptions(any_extension=True)).batches
    assert batch["image_uri"].to_pylist() == [f"{bucket}/0a"]
    with pytest.raises(UsageError, match=r"cannot list s3://.*/folder: Access Denied"):
        open_source(f"{bucket}/folder")


def test_a_store_that_does_not_answer_is_a_temporary_error() -> None:
    with pytest.raises(TemporaryError, match=r"cannot list http://127\.0\.0\.1:9/a\.jpg: "):
        open_source("http://127.0.0.1:9/a.jpg")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/a", r"gs:// needs a package: pip install 'captioner\[gs\]'"),
        ("az://bucket/**", r"az:// needs a package: pip install 'captioner\[az\]'"),
        ("zip://a.jpg::gs://bucket/x.zip", r"captioner\[gs\]"),
        ("pigeon://bucket/a", "nothing can open pigeon://"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(url)


# Local globs


def test_links_and_loops_in_a_glob_end_as_in_a_directory(tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"a/1.jpg": b"x"})
    write_tree(tmp_path / "elsewhere", {"2.jpg": b"x"})
    (photos / "a" / "up").symlink_to(photos)
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    source = open_source(f"{photos}/**/*.jpg")
    assert [uri for uri, _ in read(source)] == [f"{photos}/a/1.jpg", f"{photos}/linked/2.jpg"]
    assert source.skipped == {"links to a folder above": 1}
    assert uris(f"{tmp_path}/*/linked/*.jpg") == [f"{photos}/linked/2.jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IsTruncated": None, "Name": None}, "the answer is no list of objects"),
        ({"IsTruncated": True}, "does not say how its list goes on"),
        ({"IsTruncated": True, "NextContinuationToken": "again"}, "no new names come"),
        ({"IsTruncated": True, "NextContinuationToken": "", "Contents": []}, "does not say how"),
        ({"Contents": [{"Key": "b.jpg", "Size": 1}]}, "names from elsewhere"),
    ],
)
def test_a_list_of_s3_that_would_end_too_early_or_never_is_an_error(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    import s3fs

    bucket = s3.bucket({"a/a.jpg": b""})
    call = s3fs.S3FileSystem.call_s3

    def odd(fs: Any, method: str, **options: Any) -> Any:
        options.pop("ContinuationToken", None)
        answer = call(fs, method, **options) | changes
        return {name: value for name, value in answer.items() if value is not None}

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", odd)
    with pytest.raises(TemporaryError, match=rf"cannot list {bucket}: .*{message}"):
        uris(f"{bucket}/a/")


def test_a_date_in_a_list_of_s3_that_is_none_is_an_error(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    def odd(*_given: object, **_options: object) -> None:
        raise ValueError("Invalid timestamp")

    bucket = s3.bucket({})
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", odd)
    with pytest.raises(TemporaryError, match="Invalid timestamp"):
        uris(f"{bucket}/a/")
