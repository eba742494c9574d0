"""How many bytes of images are in memory, fetched or on their way, before they are decoded."""

import threading

MOST_BYTES = 256 * 1024 * 1024


class HeldBytes:
    """The bytes held for each image. Beyond MOST_BYTES, only one image at a time goes on."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._leader: int | None = None  # which goes on in any case, so that all can
        self._lock = threading.Lock()

    def allow(self, number: int, size: int) -> bool:
        """Note the bytes that an image has now; return whether it may have more."""
        with self._lock:
            self._total += size - self._sizes.get(number, 0)
            self._sizes[number] = size
            if self._total < MOST_BYTES:
                return True
            if self._leader is None:
                self._leader = number
            return self._leader == number

    def forget(self, number: int) -> None:
        """Note that an image is decoded, or failed."""
        with self._lock:
            self._total -= self._sizes.pop(number, 0)
            if self._leader == number:
                self._leader = None
