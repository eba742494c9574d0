"""Loaded by worker processes: rows without a model, which take no more than some sleep.

Images are neither fetched nor captioned. A partition takes $PARTITION_SECONDS, 0 by default.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import captioner.jobs.execution.worker.batches  # noqa: F401 (so that forked workers have it)
from captioner.jobs.execution.worker import run_state
from captioner.jobs.pipeline.partition import CaptionedImages, PartitionCaptioner
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.loading import identify
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import CaptionRow, Status
from captioner.schemas.image_record import ImageRecord

SECONDS = float(os.environ.get("PARTITION_SECONDS", "0"))


def load(options: CaptionerOptions) -> Any:
    """Return what stands for the captioner."""
    return SimpleNamespace(identity=identify(options), settings={})


def caption(
    self: PartitionCaptioner, records: Sequence[ImageRecord], times: StageTimes
) -> CaptionedImages:
    """Return a row for each image, after two reports, as of two batches."""
    for done in (len(records) // 2, len(records)):
        time.sleep(SECONDS / 2)
        self.report(done)
    rows = [_row(self, record) for record in records]
    hashes = [row.image_sha256 or "" for row in rows]
    assert not any(map(self.find_caption, hashes))
    return CaptionedImages(rows, dict.fromkeys(hashes))


def _row(self: PartitionCaptioner, record: ImageRecord) -> CaptionRow:
    return CaptionRow(
        *(record.uri, None, Status.OK, self.captioner.identity, self.run_id, datetime.now(UTC)),
        image_sha256=hashlib.sha256(record.uri.encode()).hexdigest(),
        caption="A dog runs across the grass.",
        confidence=0.5,
        log_prob=-7.0,
        token_log_probs=[-1.0] * 7,
        alternatives=[],
    )


run_state.load_captioner = load
PartitionCaptioner.caption = caption  # type: ignore[method-assign]
