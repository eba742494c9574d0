"""Images that are loaded ahead: none is waited for that can no longer come, or is not wanted."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.pipeline import loading
from captioner.jobs.pipeline.image_loader import ImageLoader
from captioner.jobs.pipeline.loading import load_ahead, reader_count
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.attempts import retry
from captioner.schemas.image_record import ImageRecord
from tests.support.photographs import write_photographs
from tests.support.unreliable import UnreliableServer


def test_an_image_whose_thread_died_ends_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(*_: object) -> None:
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(loading, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Downloads, "_attempt", attempt)
    records = [ImageRecord(f"http://127.0.0.1:9/{number}.jpg", None) for number in range(3)]
    with (
        ImageReader(records, 1000) as reader,
        closing(load_ahead(loader(records, reader), 2)) as images,
        pytest.raises(RuntimeError, match="nobody expects this"),
    ):
        next(images)


def test_the_image_that_is_awaited_for_longest_is_named(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "LOOK_SECONDS", 0.05)
    uris = [f"{unreliable.url}/{kind}/{n}.jpg" for n, kind in enumerate(("ok", "mute", "mute"))]
    records, named = [ImageRecord(uri, None) for uri in uris], list[str]()

    def waits(uri: str) -> None:
        if uri != uris[0]:  # which may take its time, too
            named.append(uri)
            unreliable.stopped.set()  # silence ends in a closed connection

    monkeypatch.setattr(retry, "RETRY_DELAYS", ())
    with ImageReader(records, 10**6) as reader:
        images = list(load_ahead(loader(records, reader), 2, waits))
    assert len(images) == 3 and set(named) <= set(uris[1:]) and named[0] == uris[1]


def test_images_that_are_queued_are_not_opened_once_nobody_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over, opened = Event(), list[bytes]()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            is_over.set()
            super().shutdown(wait)

    def prepare(data: bytes) -> None:
        opened.append(data)
        if data != paths[0].read_bytes():  # the image that is taken
            is_over.wait()

    monkeypatch.setattr(loading, "ThreadPoolExecutor", Pool)
    paths = sorted(write_photographs(tmp_path, 3 * reader_count()).iterdir())
    records = [ImageRecord(str(path), None) for path in paths]
    with ImageReader(records, 10**6) as reader:
        to_load = loader(records, reader)
        to_load.prepare = prepare  # type: ignore[assignment]
        with closing(load_ahead(to_load, len(records))) as images:
            next(images)
    assert len(opened) <= 1 + reader_count()


def loader(records: list[ImageRecord], reader: ImageReader) -> ImageLoader:
    return ImageLoader(records, reader, lambda data: None, lambda _: None, StageTimes())  # type: ignore[arg-type, return-value]
