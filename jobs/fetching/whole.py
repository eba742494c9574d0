"""Whether an image came whole: asked only of one that cannot be opened."""

from captioner.jobs.storage.filesystems import impatient_filesystem
from captioner.jobs.storage.uris import is_chain, scheme


def why_not_whole(uri: str, size: int) -> str | None:
    """Return why `size` bytes are not all of an object of S3; None if they are, or may be.

    A store may send less than it has, with a length that fits, but its list says how much that is.
    """
    if scheme(uri) not in ("s3", "s3a") or is_chain(uri):
        return None
    fs, path = impatient_filesystem(uri)
    bucket, key, _ = fs.split_path(path)
    try:
        answer = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
    except Exception:  # noqa: BLE001 (the right to list may be missing, and nothing is known then)
        return None
    listed = [each["Size"] for each in answer.get("Contents", ()) if each["Key"] == key]
    if not listed or listed[0] == size:
        return None
    return f"the store sent {size} bytes, and lists {listed[0]}"
