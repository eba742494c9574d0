"""OUT on an object store: what is done there otherwise than in a folder of this machine.

Paths are pathlib's, or universal_pathlib's, which have the same methods: a path that is no
`pathlib.Path` is an object on a store. A store has no folders, and writes an object whole, by one
PUT or one completed multipart upload. Nothing that it lists is kept for a second look. Every
function here takes both kinds of path, and raises OSError whatever the store calls the fault.
"""

import io
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from upath import UPath

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.failures import os_errors
from captioner.jobs.storage.filesystems import require_packages
from captioner.jobs.storage.uris import is_http, is_local, local_path, scheme_with_password

if TYPE_CHECKING:
    from typing_extensions import TypeIs

OutPath: TypeAlias = Path | UPath
Source: TypeAlias = Path | io.BytesIO | Any  # what pyarrow reads from
OPEN_AHEAD = 16  # files of a store that are opened before they are read
WHOLE_BYTES = 4 * 1024 * 1024  # an object of at most this size is read by one request


def out_path(out: str | Path) -> OutPath:
    """The path of OUT. UsageError for a URL of what no package here can write."""
    url = str(out)
    if is_local(url):
        return Path(local_path(url)).absolute()
    if "::" in url:
        raise UsageError(f"{url} lies in an archive: give a folder, or a URL as s3://bucket/prefix")
    if is_http(url):
        raise UsageError(f"{url} cannot be written to: give a folder, or a URL as s3://...")
    if any(sign in url for sign in "[]*?"):
        raise UsageError(f"{url} looks like a glob: give a prefix without any of [ ] * ?")
    if protocol := scheme_with_password(url):
        raise UsageError(f"OUT, a {protocol}:// URL, must be without user and password")
    require_packages(url)
    return UPath(url, use_listings_cache=False)


def is_store(path: OutPath) -> "TypeIs[UPath]":
    """Whether a path is on an object store."""
    return not isinstance(path, Path)


def make_folder(path: OutPath) -> None:
    """Make a folder, and those above it, where there are folders."""
    if not is_store(path):
        path.mkdir(parents=True, exist_ok=True)


def create(path: OutPath, content: bytes = b"") -> None:
    """Write a file that is not there yet; FileExistsError if it is, whoever was first."""
    if not is_store(path):
        with path.open("xb") as file:
            file.write(content)
        return
    with os_errors():
        path.fs.pipe_file(path.path, content, mode="create")


def put(file: Path, path: UPath) -> None:
    """Write a file of this machine to a store, all of it or nothing, over any other."""
    with os_errors():
        path.fs.put_file(str(file), path.path)


def get(path: UPath, file: Path) -> None:
    """Copy an object to a file of this machine."""
    with os_errors():
        path.fs.get_file(path.path, str(file))


def put_bytes(content: bytes, path: UPath) -> None:
    """Write a small file, over any other."""
    with os_errors():
        path.fs.pipe_file(path.path, content)


def copy(path: UPath, to: UPath) -> None:
    """Copy an object within its store."""
    with os_errors():
        path.fs.cp_file(path.path, to.path)


def remove(path: OutPath) -> None:
    """Remove a file, if it is there."""
    if not is_store(path):
        path.unlink(missing_ok=True)
        return
    with os_errors(), suppress(FileNotFoundError):
        path.fs.rm_file(path.path)


def remove_objects(folder: UPath, paths: Sequence[OutPath]) -> None:
    """Remove files of a folder of a store, as far as they are there, many by a request."""
    names = {path.name for path in paths}
    there = [path.path for path in files(folder, "*") if is_store(path) and path.name in names]
    if there:
        with os_errors():
            folder.fs.rm(there)
        if left := [path for path in files(folder, "*") if path.name in names]:
            raise OSError(f"{left[0]} cannot be removed")  # s3fs says nothing of it


def remove_tree(path: OutPath, *, ignore_errors: bool = False) -> None:
    """Remove a folder and all that is in it, if it is there; OSError if something stays."""
    if not is_store(path):
        shutil.rmtree(path, ignore_errors)
        return
    with suppress(*[OSError] if ignore_errors else [FileNotFoundError]), os_errors():
        path.fs.rm(path.path, recursive=True)
        if left := path.fs.find(path.path):
            raise OSError(f"{left[0]} cannot be removed")


def files(folder: OutPath, pattern: str) -> list[OutPath]:
    """The files of a folder whose names match, sorted by name; none if it is not there."""
    if is_store(folder):
        names = [info["name"].rpartition("/")[2] for info in _listed(folder)]
    else:  # not by glob here either
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [folder / name for name in sorted(names) if fnmatchcase(name, pattern)]


def sizes(folder: OutPath, pattern: str) -> list[int]:
    """The bytes of the files of a folder whose names match; a store tells them with the names."""
    if not is_store(folder):
        return [path.stat().st_size for path in folder.glob(pattern)]
    found = _listed(folder)
    return [i["size"] for i in found if fnmatchcase(i["name"].rpartition("/")[2], pattern)]


def _listed(folder: UPath) -> list[dict[str, Any]]:
    """What is directly in a folder; not by glob, to which a listing that fails is an empty one."""
    with suppress(FileNotFoundError), os_errors():
        found: list[dict[str, Any]] = folder.fs.ls(folder.path, detail=True)
        return found
    return []


def folders_of_runs(runs: OutPath, name: str) -> list[OutPath]:
    """The folders of that name which runs have, sorted by run; on a store, those with objects."""
    if not is_store(runs):
        return sorted(runs.glob(f"*/{name}"))
    with os_errors():
        keys = runs.fs.find(runs.path)  # a request for a thousand objects, not one a run
    below = (key.removeprefix(runs.path).lstrip("/").split("/") for key in keys)
    found = {parts[0] for parts in below if len(parts) > 2 and parts[1] == name}
    return [runs / run / name for run in sorted(found)]


def source(path: OutPath) -> Source:
    """What pyarrow reads a file from: of a large object, only what it needs."""
    if not is_store(path):
        return path
    with os_errors():
        file = path.fs.open(path.path, "rb", cache_type="none")
        return io.BytesIO(file.read()) if file.size <= WHOLE_BYTES else file


def size_of(source: Source) -> int:
    """The bytes of a file that is read from there."""
    if isinstance(source, Path):
        return source.stat().st_size
    return source.getbuffer().nbytes if isinstance(source, io.BytesIO) else int(source.size)


def sources(paths: Iterable[OutPath]) -> Iterator[tuple[OutPath, Callable[[], Source]]]:
    """Files, and what gives what pyarrow reads each from. Some of a store are opened ahead."""
    with ThreadPoolExecutor(OPEN_AHEAD) as pool:
        waiting: deque[tuple[OutPath, Future[Source]]] = deque()
        for path in paths:
            if not is_store(path):
                yield path, partial(source, path)
                continue
            waiting.append((path, pool.submit(source, path)))
            if len(waiting) >= OPEN_AHEAD:
                first, opened = waiting.popleft()
                yield first, opened.result
        for path, opened in waiting:
            yield path, opened.result
