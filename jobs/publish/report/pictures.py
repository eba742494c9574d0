"""The pictures of a report: thumbnails, fetched at the same time, none of them waited for long."""

import base64
import queue
import threading
import time
from collections.abc import Mapping, Sequence

from captioner.image import ImageLimits
from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.publish.thumbnails import shrunk

SIDE = 360  # pixels, at most
SECONDS = 8.0  # for all thumbnails, which are fetched at the same time
MAX_BYTES = 64 * 1024 * 1024  # of an image file
LIMITS = ImageLimits(max_pixels=64_000_000)
LARGEST = 120 * 1024  # bytes of a thumbnail: 24 of them, in base64, are less than 4 MB
LATE = "its source did not answer in time"
Picture = tuple[str, str]  # a `data:` URL and "", or "" and the reason why there is none
_DECODING = threading.BoundedSemaphore(2)  # a large picture takes much memory


def pictures(uris: Sequence[str]) -> Mapping[str, Picture]:
    """Return thumbnails of images by URI, of those that can be had within SECONDS.

    A daemon thread may wait for an image until this process ends.
    """
    end = time.monotonic() + SECONDS
    made: queue.SimpleQueue[tuple[str, Picture]] = queue.SimpleQueue()
    found: dict[str, Picture] = {}
    for uri in dict.fromkeys(uris):
        found[uri] = ("", LATE)
        threading.Thread(target=_make, args=(uri, made), daemon=True).start()
    for _ in found:
        try:
            uri, picture = made.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[uri] = picture
    return found


def _make(uri: str, made: "queue.SimpleQueue[tuple[str, Picture]]") -> None:
    try:
        made.put((uri, (_data_url(uri), "")))
    except FetchError as error:
        made.put((uri, ("", str(error))))
    except Exception as error:  # noqa: BLE001 (the boundary of a thread)
        made.put((uri, ("", type(error).__name__)))


def _data_url(uri: str) -> str:
    data = fetch_image(uri, MAX_BYTES)
    with _DECODING:
        picture = shrunk(data, SIDE, LIMITS)
        if len(picture) > LARGEST:
            picture = shrunk(picture, SIDE // 2)
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
