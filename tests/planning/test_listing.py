import io
import sys

import pyarrow as pa
import pytest

from captioner.jobs.planning.listing import with_progress
from captioner.jobs.sources.source import Source
from captioner.schemas.image_record import plan_schema


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stderr", "quiet", "shows"),
    [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)],
)
def test_images_found_are_counted_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO, quiet: bool, shows: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    batch = pa.record_batch([["a.jpg", "b.jpg"], [None, None]], schema=plan_schema())
    source = with_progress(Source(plan_schema(), iter([batch, batch])), quiet)
    assert sum(batch.num_rows for batch in source.batches) == 4
    assert ("listing: 0 images" in stderr.getvalue()) == shows
    assert bool(stderr.getvalue()) == shows
