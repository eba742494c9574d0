"""Reads of remote files that end in time, even where a package sets no limit of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from fsspec.asyn import get_loop, sync
from fsspec.callbacks import Callback
from fsspec.spec import AbstractBufferedFile

from captioner.jobs.storage.attempts.pace import Pace
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
        self._pace = Pace(seconds)

    def relative_update(self, inc: int = 1) -> None:
        self._pace.received(inc)
        if inc:
            self._pace.check()
