"""The path of OUT: pathlib's on this machine, universal_pathlib's on a store.

Paths only name things. All reading and writing goes through a backend (backend.py).
"""

from pathlib import Path
from typing import TypeAlias

from upath import UPath

from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import require_packages
from captioner.jobs.storage.uris import is_http, is_local, local_path, scheme_with_password

OutPath: TypeAlias = Path | UPath


def _local(out: str) -> Path:
    path = Path(local_path(out)).absolute()
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} is not UTF-8: give a folder whose name is") from error
    return path


def out_path(out: str | Path) -> OutPath:
    """Return the path of OUT; raise UsageError for a URL that no package here can write to."""
    url = str(out)
    if is_local(url):
        return _local(url)
    if "::" in url:
        raise UsageError(
            f"{url} lies in an archive: give a folder, or a URL like s3://bucket/prefix"
        )
    if is_http(url):
        raise UsageError(f"{url} cannot be written to: give a folder, or a URL like s3://...")
    if any(sign in url for sign in "[]*?"):
        raise UsageError(f"{url} looks like a glob: give a prefix without any of [ ] * ?")
    if protocol := scheme_with_password(url):
        raise UsageError(f"OUT, a {protocol}:// URL, must not contain a user or password")
    require_packages(url)
    return UPath(url, use_listings_cache=False)
