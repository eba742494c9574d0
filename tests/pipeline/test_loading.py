"""Images that are loaded ahead: none is waited for that can no longer come."""

from contextlib import closing

import pytest

from captioner.jobs.fetching.container_reader import ImageReader
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.pipeline import loading
from captioner.jobs.pipeline.image_loader import ImageLoader
from captioner.jobs.pipeline.loading import load_ahead
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.schemas.image_record import ImageRecord


def test_an_image_whose_thread_died_ends_the_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(*_: object) -> None:
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(loading, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Downloads, "_attempt", attempt)
    records = [ImageRecord(f"http://127.0.0.1:9/{number}.jpg", None) for number in range(3)]
    with ImageReader(records, 1000) as reader:
        loader = ImageLoader(records, reader, lambda data: None, lambda _: None, StageTimes())  # type: ignore[arg-type, return-value]
        with (
            closing(load_ahead(loader, 2)) as images,
            pytest.raises(RuntimeError, match="nobody expects this"),
        ):
            next(images)
