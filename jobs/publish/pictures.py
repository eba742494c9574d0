"""The pictures of a page: thumbnails, fetched at the same time, none of them waited for long."""

import base64
import queue
import threading
import time
from collections.abc import Mapping, Sequence

from captioner.jobs.errors import FetchError
from captioner.jobs.fetching.by_uri import fetch_image
from captioner.jobs.publish.thumbnails import shrunk

SIDE = 360  # pixels, at most
SECONDS = 8.0  # for all thumbnails, unless there are many
SECONDS_EACH = 0.2  # for each of many
AT_ONCE = 24  # images that are fetched at the same time
MAX_BYTES = 64 * 1024 * 1024  # of an image file
LARGEST = 120 * 1024  # bytes of a thumbnail: 24 of them, in base64, are less than 4 MB
LATE = "its source did not answer in time"
Picture = tuple[str, str]  # a `data:` URL and "", or "" and the reason why there is none
_DECODING = threading.BoundedSemaphore(2)  # a large picture takes much memory
_Waiting = queue.SimpleQueue[str]
_Made = queue.SimpleQueue[tuple[str, Picture]]


def pictures(uris: Sequence[str]) -> Mapping[str, Picture]:
    """Return thumbnails of images by URI, of those that can be had in time.

    That is SECONDS, or SECONDS_EACH for each of many images. A daemon thread may wait for an image
    until this process ends.
    """
    found: dict[str, Picture] = dict.fromkeys(uris, ("", LATE))
    end = time.monotonic() + max(SECONDS, SECONDS_EACH * len(found))
    waiting, made = _Waiting(), _Made()
    for uri in found:
        waiting.put(uri)
    for _ in range(min(AT_ONCE, len(found))):
        threading.Thread(target=_make, args=(waiting, made, end), daemon=True).start()
    for _ in range(len(found)):
        try:
            uri, picture = made.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        found[uri] = picture
    return found


def _make(waiting: _Waiting, made: _Made, end: float) -> None:
    """Make pictures until none is waiting, or time is over."""
    while time.monotonic() < end:
        try:
            uri = waiting.get_nowait()
        except queue.Empty:
            return
        made.put((uri, _picture(uri)))


def _picture(uri: str) -> Picture:
    try:
        return _data_url(uri), ""
    except FetchError as error:
        return "", str(error)
    except Exception as error:  # noqa: BLE001 (the boundary of a thread)
        return "", type(error).__name__


def _data_url(uri: str) -> str:
    data = fetch_image(uri, MAX_BYTES)
    with _DECODING:
        picture = shrunk(data, SIDE)
        if len(picture) > LARGEST:
            picture = shrunk(picture, SIDE // 2)
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
