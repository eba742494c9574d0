"""Whether an image came whole: asked only of one that cannot be opened."""

from captioner.jobs.errors import HostDown
from captioner.jobs.storage.attempts.hosts import host_of
from captioner.jobs.storage.attempts.retry import claimed
from captioner.jobs.storage.filesystems import impatient_filesystem
from captioner.jobs.storage.uris import is_chain, scheme


def why_not_whole(uri: str, size: int) -> str | None:
    """Return why `size` bytes are not all of an object of S3; None if they are, or may be.

    A store may send less than it has, with a length that fits, but its list says how much that is.
    A bucket that once gave no list is not asked for one again.
    """
    host = host_of(uri)
    if scheme(uri) not in ("s3", "s3a") or is_chain(uri) or host is None or not host.gives_lists:
        return None
    try:
        with claimed(host):
            listed = _listed_size(uri)
    except HostDown:
        return None
    except Exception:  # noqa: BLE001 (the right to list may be missing, and nothing is known then)
        host.gives_lists = False
        return None
    return None if listed in (None, size) else f"the store sent {size} bytes, and lists {listed}"


def _listed_size(uri: str) -> int | None:
    """Return the bytes of an object as the list of its bucket has them; None if it lacks it."""
    fs, path = impatient_filesystem(uri)
    bucket, key, _ = fs.split_path(path)
    answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
    sizes = (each["Size"] for each in answer.get("Contents", ()) if each["Key"] == key)
    return next(sizes, None)
