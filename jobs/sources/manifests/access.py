"""How the images that a manifest names may be fetched: a manifest is input, and not trusted.

One from elsewhere must not name files of this machine, and none a protocol that the job does not
use. Which hosts HTTP may reach is checked when an image is fetched (storage/http/access.py).
"""

from collections.abc import Sequence
from dataclasses import asdict

from captioner.jobs.storage.http.access import why_refused
from captioner.jobs.storage.signatures import without_signature
from captioner.schemas.image_record import Access


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
    if refused := why_refused(uri, folder):
        return Access(refused=refused)
    return Access(url=uri) if key != uri else None
