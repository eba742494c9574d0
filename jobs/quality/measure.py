"""The rows that a run has written -> the quality of its captions, in bounded memory."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.table.layout import RunFolder
from captioner.jobs.table.read import (
    BATCH_ROWS,
    closing,
    column_batches,
    opened_files,
    rechunked,
)
from captioner.jobs.table.runs.rows import files_of_run, may_have_rows_of
from captioner.schemas.caption_table import Status
from captioner.schemas.job_report import DECLINED, LOW_CONFIDENCE, Quality

BUCKETS = 64  # files of hashes; one of them is in memory at a time
_COLUMNS = ("run_id", "status", "caption", "confidence")
Hashes = npt.NDArray[np.uint64]


def measure(
    run: RunFolder, statuses: Mapping[str, int], folder: Path, *, replaced: bool
) -> Quality:
    """Return the quality of the captions that a run has written, whose images have `statuses`.

    Its rows may have `replaced` others. `folder` needs room for 8 bytes for each caption.
    """
    confidences, captions = _Confidences(), _CaptionCounter(folder)
    for rows in rechunked(_captioned(run, replaced=replaced), BATCH_ROWS):
        captions.add(rows["caption"])
        confidences.add(rows["confidence"])
    different, most, text = captions.result()
    total = captions.total
    return Quality(
        images=sum(statuses.values()),
        captions=total,
        unique=_share(different, total),
        top_caption=_share(most, total),
        most_frequent=text,
        confidence=_share(confidences.sum, confidences.count),
        low_confidence=_share(confidences.low, confidences.count),
        failed=_failed(statuses),
    )


def _captioned(run: RunFolder, *, replaced: bool) -> Iterator[pa.Table]:
    """Yield caption and confidence of the rows of a run that have a caption."""
    for path, file in opened_files(files_of_run(run, replaced=replaced)):
        if not may_have_rows_of(run.run_id, file.metadata):
            with closing(file):
                continue
        for batch in column_batches(path, file, _COLUMNS):
            rows = pa.Table.from_batches([batch])
            is_ok = pc.equal(rows["status"].cast(pa.string()), Status.OK)
            wanted = pc.and_(is_ok, pc.equal(rows["run_id"], run.run_id))
            yield rows.filter(wanted).select(["caption", "confidence"])


def _failed(statuses: Mapping[str, int]) -> dict[str, float]:
    images = sum(statuses.values())
    others = (Status.OK, DECLINED)
    return {kind: round(n / images, 6) for kind, n in statuses.items() if kind not in others}


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


@dataclass
class _Confidences:
    count: int = 0
    sum: float = 0.0
    low: int = 0

    def add(self, column: pa.ChunkedArray) -> None:
        values = column.drop_null().to_numpy().astype(np.float64)
        self.count += len(values)
        self.sum += float(values.sum())
        self.low += int((values < LOW_CONFIDENCE).sum())


class _CaptionCounter:
    """Counts different captions by their hashes, which lie on disk, in buckets.

    One file is open at a time, as few may be (`ulimit -n`).
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"captions-{number:02d}" for number in range(BUCKETS)]
        for path in self._paths:
            path.write_bytes(b"")
        self._texts: dict[int, str] = {}  # the most frequent caption of each batch, by hash
        self.total = 0

    def add(self, captions: pa.ChunkedArray) -> None:
        """Count the captions of a batch."""
        texts = captions.to_numpy().astype(object)
        if not len(texts):
            return
        hashes: Hashes = pd.util.hash_array(texts, categorize=False)
        self.total += len(texts)
        values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        most = counts.argmax()
        self._texts[int(values[most])] = texts[first[most]]
        for number in np.unique(hashes % BUCKETS).tolist():
            with self._paths[number].open("ab") as file:
                file.write(hashes[hashes % BUCKETS == number].tobytes())

    def result(self) -> tuple[int, int, str | None]:
        """Return the number of different captions, and count and text of the most frequent one.

        The text is None in the unlikely case that it is not the most frequent of any batch.
        """
        different, most = 0, Counter[int]()
        for path in self._paths:
            values, counts = np.unique(np.fromfile(path, np.uint64), return_counts=True)
            path.unlink()
            different += len(values)
            if len(values):
                most[int(values[counts.argmax()])] = int(counts.max())
        (hashed, count), *_ = most.most_common(1) or [(0, 0)]
        return different, count, self._texts.get(hashed)
