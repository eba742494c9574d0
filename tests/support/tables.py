"""A job, and the caption table that it writes."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from captioner.jobs import JobConfig


@pytest.fixture
def job(tmp_path: Path, scheduler: str, tiny_checkpoint: Path) -> JobConfig:
    """Return a job that captions tmp_path/photos into tmp_path/out on two running workers."""
    return JobConfig(
        source=tmp_path / "photos",
        out=tmp_path / "out",
        checkpoint=tiny_checkpoint,
        scheduler=scheduler,
        wait_for_workers=120,  # after a change of the code, all are refused
        batch_size=8,
        quiet=True,
    )


def read_table(out: Path) -> pa.Table:
    """Return the caption table in OUT, sorted by image."""
    return ds.dataset(out / "captions").to_table().sort_by("image_uri")


def statuses(out: Path) -> dict[str, int]:
    """Return the number of rows by status."""
    return dict(Counter(read_table(out)["status"].to_pylist()))


def image_names(out: Path) -> list[str]:
    """Return the file names of the images of all rows, sorted."""
    return [Path(uri).name for uri in read_table(out)["image_uri"].to_pylist()]
