"""Reads of remote files that end in time, even where a package sets no limit of its own."""

import asyncio
import io
import math
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fsspec.asyn import get_loop, sync
from fsspec.callbacks import Callback
from fsspec.spec import AbstractBufferedFile

from captioner.jobs.storage.attempts.pace import Pace
from captioner.jobs.storage.failures import reading_errors
from captioner.jobs.storage.http.parts import Parts

T = TypeVar("T")
RANGE_SECONDS = 120.0  # for a part of a file, and ...
RANGE_RATE = 64 * 1024  # ... a second more for each such number of bytes


def bounded(file: Any) -> Any:
    """Return a file of fsspec whose requests for parts end in time, with TimeoutError.

    OSError if a part is not as long as it should be.
    """
    if isinstance(file, AbstractBufferedFile):
        is_http = hasattr(file, "async_fetch_range")
        fetch = Parts(file).fetch if is_http else partial(in_thread, file.cache.fetcher)
        file.cache.fetcher = partial(_fetch, fetch)
    return file


def _fetch(fetch: Callable[[int, int], Awaitable[bytes]], start: int, end: int) -> bytes:
    seconds = RANGE_SECONDS + (end - start) / RANGE_RATE
    data: bytes = sync(get_loop(), _within, seconds, partial(fetch, start, end))
    if len(data) != end - start:
        raise OSError(f"asked for {end - start} bytes, the store sent {len(data)}")
    return data


async def _within(seconds: float, read: Callable[[], Any]) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await read()
    except TimeoutError:
        if not limit.expired():
            raise
        raise TimeoutError(f"a part of it was not complete within {seconds:.0f} s") from None


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Return what a call returns that may block: in a thread, which is left behind if cancelled.

    asyncio.to_thread has few threads, and the process waits for them when it ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            result = call(*arguments)
        except Exception as error:  # noqa: BLE001 (raised where it is awaited)
            loop.call_soon_threadsafe(_settle, done.set_exception, done, error)
        else:
            loop.call_soon_threadsafe(_settle, done.set_result, done, result)

    threading.Thread(target=work, daemon=True).start()
    return await done


def _settle(settle: Callable[[Any], None], done: asyncio.Future[Any], value: Any) -> None:
    if not done.done():
        settle(value)


class PacedCopy(Callback):  # type: ignore[misc]  # fsspec has no types
    """A callback of fsspec that ends a copy with TimeoutError when it comes too slowly."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._pace = Pace(seconds, whole=math.inf)  # of a file that the user named

    def relative_update(self, inc: int = 1) -> None:
        self._pace.received(inc)
        if inc:
            self._pace.check()


class RemoteFile(io.RawIOBase):
    """A file of fsspec as a raw file of Python; a read may return less than asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, size: int | None = -1, /) -> bytes:
        return bytes(self._file.read(-1 if size is None else size))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class PacedStream(RemoteFile):
    """A file that can only be read forwards, and not too slowly.

    TemporaryError for a transient failure, else OSError. Time between two reads does not count.
    """

    def __init__(self, url: str, file: Any, seconds: float) -> None:
        super().__init__(file)
        self._url, self._read_at = url, time.monotonic()
        self._pace = Pace(seconds, whole=math.inf)  # of a file that the user named

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        self._pace.waited(time.monotonic() - self._read_at)
        with reading_errors(self._url):
            data = self.read(len(buffer))
            self._pace.received(len(data))
            if data:
                self._pace.check()
        self._read_at = time.monotonic()
        buffer[: len(data)] = data
        return len(data)
