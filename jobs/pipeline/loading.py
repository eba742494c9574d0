"""The images of a partition, loaded ahead: those of other hosts as they come, others in order."""

import os
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import islice
from queue import Empty, SimpleQueue

from captioner.jobs.fetching.downloads import THREADS
from captioner.jobs.pipeline.image_loader import ImageLoader, LoadedImage

LOOK_SECONDS = 1.0  # between two looks whether the images that are awaited can still come
MIN_READERS = 4  # threads that read what is at hand, and decode
FEW_READERS = 2  # where each core has a process for that: more would wait for Python's lock
MOST_READERS = 256
READERS = "CAPTIONER_READERS"  # the variable that says how many, if the network uses other cores
Loading = tuple[int, "Future[LoadedImage]"]  # with the number of the image


def load_ahead(
    loader: ImageLoader, ahead: int, waits: Callable[[str], None] = lambda uri: None
) -> Generator[LoadedImage, None, None]:
    """Yield the images; of each kind, at most `ahead` are loaded beyond the one that is yielded.

    Call `waits` now and then while none comes, with the image that is on its way for longest.
    """
    reader, downloads = loader.reader, loader.reader.downloads
    loading: SimpleQueue[Loading] = SimpleQueue()
    pool = ThreadPoolExecutor(reader_count())

    def load(number: int) -> None:
        loading.put((number, pool.submit(loader.load, number)))

    try:
        at_hand = iter(reader.at_hand)
        for number in islice(at_hand, ahead + 1):
            load(number)
        downloads.start(load, ahead, lambda: _waiting(loader))
        for _ in loader.records:
            number, future = _next_of(loading, loader, waits)
            yield future.result()
            if number in downloads:
                downloads.used()
            elif (following := next(at_hand, None)) is not None:
                load(following)
    finally:
        downloads.close()  # before the pool, which takes nothing more then
        pool.shutdown(cancel_futures=True)  # nobody takes the images that are queued


def _next_of(
    loading: "SimpleQueue[Loading]", loader: ImageLoader, waits: Callable[[str], None]
) -> Loading:
    """Return what is loaded next; raise the error that keeps it from coming."""
    downloads = loader.reader.downloads
    while True:
        try:
            return loading.get(timeout=LOOK_SECONDS)
        except Empty:
            downloads.check()
        if (number := downloads.oldest) is not None:
            waits(loader.records[number].uri)


def _waiting(loader: ImageLoader) -> AbstractContextManager[None]:
    """Measure the time of one thread of many, as if as few fetched as decode: they compare."""
    share = reader_count() / THREADS
    return loader.times.measure("fetch", lambda: share * time.perf_counter())


def reader_count() -> int:
    """Return how many threads decode: as the cluster says, or one for each core, but a few."""
    if given := os.environ.get(READERS):
        count = max(1, int(given))
    else:
        count = max(MIN_READERS, int(os.environ.get("OMP_NUM_THREADS", "0")))
    return min(count, MOST_READERS)
