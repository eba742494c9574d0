"""How the images that a manifest names may be fetched: a manifest is input, and not trusted.

One from elsewhere must not name files of this machine, and none a protocol that the job does not
use. Which hosts HTTP may reach is checked when an image is fetched (storage/access.py).
"""

from collections.abc import Sequence
from dataclasses import asdict

from fsspec.config import conf

from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import is_local, scheme, split_chain
from captioner.schemas.image_record import Access

_PROTOCOLS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https", "zip", "tar")
)


def keys_and_access(
    uris: Sequence[str], folder: str
) -> tuple[list[str], list[dict[str, str | None] | None]]:
    """Return the keys of images with these URIs, and for each how it is fetched, if not by its key.

    `folder` has the manifest.
    """
    keys = [without_signature(uri) for uri in uris]
    found = [_access(uri, key, folder) for uri, key in zip(uris, keys, strict=True)]
    return keys, [None if access is None else asdict(access) for access in found]


def _access(uri: str, key: str, folder: str) -> Access | None:
    if refused := _why_refused(uri, folder):
        return Access(refused=refused)
    return Access(url=uri) if key != uri else None


def _why_refused(uri: str, folder: str) -> str | None:
    _, container = split_chain(uri)
    if is_local(uri):
        if is_local(folder):
            return None
        return "a list from elsewhere may not name files of this machine: save it here to use it"
    protocol = scheme(uri)
    if protocol not in _PROTOCOLS and protocol not in conf and protocol != scheme(folder):
        return (
            f"a list may not name {protocol}:// unless a job file has a table "
            f"[storage_options.{protocol}]"
        )
    return _why_refused(container[2:], folder) if container else None
