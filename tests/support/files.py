"""Files in folders, archives and fsspec's memory, and listings of sources."""

import io
import tarfile
import zipfile
from pathlib import Path

import fsspec

from captioner.jobs.sources.open_source import open_source
from captioner.jobs.sources.source import Source


def read(source: Source) -> list[tuple[str, str | None]]:
    rows = [row for batch in source.batches for row in batch.to_pylist()]
    return [(row["image_uri"], row["image_version"]) for row in rows]


def uris(source: str | Path) -> list[str]:
    return [uri for uri, _ in read(open_source(source))]


def write_memory(files: dict[str, bytes | str]) -> None:
    for path, data in files.items():
        with fsspec.open(f"memory://{path}", "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
