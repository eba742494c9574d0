"""The pictures of the images that are shown, or will be next."""

import asyncio
from collections import OrderedDict

from captioner.jobs.publish.review.page.background import Background
from captioner.jobs.publish.thumbnails import thumbnail

SIDE = 1024  # pixels
KEPT = 32  # of about 150 kB each
AT_ONCE = 3  # made at the same time, with the memory that a whole image takes


class Pictures:
    """Pictures by URI, made once each; the latest are kept."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, asyncio.Future[bytes]] = OrderedDict()
        self._background = Background(AT_ONCE)

    def prepare(self, uri: str) -> "asyncio.Future[bytes]":
        """Begin to make a picture, if that was not begun before; return its future.

        It raises FetchError if there is no picture. A picture that failed is made again.
        """
        made = self._made.get(uri)
        if made is None or (made.done() and made.exception()):
            made = self._made[uri] = self._background.run(thumbnail, uri, SIDE)
            made.add_done_callback(_retrieve)
        self._made.move_to_end(uri)
        while len(self._made) > KEPT:
            self._made.popitem(last=False)
        return made


def _retrieve(made: "asyncio.Future[bytes]") -> None:
    """Look at a failure, so that asyncio does not report one that nobody waits for."""
    if not made.cancelled():
        made.exception()
