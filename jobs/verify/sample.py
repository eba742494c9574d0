"""A sample of the rows, whose images are fetched and captioned again, to compare."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from captioner.errors import CaptionerError
from captioner.jobs.calibrations import kept_calibration
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.worker.run_state import load_captioner
from captioner.jobs.fetching.by_uri import parquet_member
from captioner.jobs.pipeline.former import second_opinion
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.jobs.table.layout import OutFolder, RunFolder
from captioner.jobs.table.runs.reports import run_folders
from captioner.jobs.verify.files import Rows, TableFile
from captioner.jobs.verify.findings import Kind, Sampled, Scope
from captioner.loading import identify
from captioner.options import PRECISIONS, CaptionerOptions
from captioner.schemas.caption_table import (
    CAPTIONERS,
    CaptionRow,
    Status,
    caption_table_schema,
    with_schema,
)
from captioner.schemas.image_record import ImageRecord
from captioner.search_options import SearchOptions

if TYPE_CHECKING:
    from captioner.captioner import Captioner

TOGETHER = 256  # images of a sample that are captioned together
TOLERANCE = 1e-3  # of a confidence
_HARMFUL = (Status.CRASHED, Status.OUT_OF_MEMORY, Status.TIMEOUT)  # images that are not opened
_COMPARED = ("width", "height", "status", "caption")
_COLUMNS = [each.name for each in fields(CaptionRow)]
_KEY = "key"
_KEYS = 2.0**64  # the number of all
_REMEDY = "caption it again with --force and --only"


@dataclass(frozen=True)
class Choice:
    """How many rows to sample: a `share` of all, or a `count`; equal seeds choose equal images."""

    share: float = 0.0
    count: int = 1
    seed: int = 0
    captioner: CaptionerOptions = field(default_factory=CaptionerOptions)


class Sample:
    """A sample of the rows: those whose URI has one of the smallest keys.

    A key is a hash of URI and seed, so the choice depends neither on the order of the rows nor on
    the files that have them.
    """

    def __init__(self, scope: Scope, choice: Choice) -> None:
        self._scope, self._choice = scope, choice
        self._hash_key = f"{choice.seed % 10**16:016d}"
        self._chosen: pa.Table | None = None
        self._settings: dict[str, Mapping[str, Any]] = {}  # of captioners

    def add(self, rows: Rows) -> None:
        """Choose among rows."""
        uris = rows.table["image_uri"].fill_null("").to_numpy()
        keys = pd.util.hash_array(uris, hash_key=self._hash_key, categorize=False)
        wanted = self._least(keys)
        table = with_schema(rows.table.take(wanted), caption_table_schema()).select(_COLUMNS)
        table = table.append_column(_KEY, pa.array(keys[wanted]))
        both = pa.concat_tables([self._chosen, table]) if self._chosen else table
        self._chosen = both.take(self._least(both[_KEY].to_numpy())).combine_chunks()

    def _least(self, keys: Any) -> pa.Array:
        """Return the positions of the keys below the share, or else of the `count` least."""
        order = np.argsort(keys, kind="stable")
        below = int((keys < np.float64(self._choice.share * _KEYS)).sum())
        return pa.array(order[: max(below, self._choice.count)])

    def note(self, file: TableFile) -> None:
        """Note the settings of captioners that a file names."""
        with self._scope.reading(Kind.SCHEMA, file.path, _REMEDY):
            self._settings |= settings_of(file)

    def check(self) -> Sampled:
        """Fetch and caption the chosen images again, and find rows that differ."""
        rows = [CaptionRow(**row) for row in self._chosen_rows()]
        by_captioner: dict[str, list[CaptionRow]] = {}
        for row in rows:
            by_captioner.setdefault(row.captioner, []).append(row)
        counts, missing = Counter[str](), dict[str, str]()
        max_bytes, max_pixels = _limits_of(self._scope.out)
        for identity, own in by_captioner.items():
            try:
                captioner = self._load(identity, max_pixels)
            except (CaptionerError, UsageError) as error:
                missing[identity] = str(error)
                counts["not_captioned"] += len(own)
                continue
            again = _Again(captioner, max_bytes)
            for row, now in again.captioned(own):
                counts[self._compare(row, now)] += 1
        return Sampled(len(rows), **counts, captioners=missing)

    def _chosen_rows(self) -> Sequence[dict[str, Any]]:
        if self._chosen is None:
            return []
        rows: Sequence[dict[str, Any]] = self._chosen.select(_COLUMNS).to_pylist()
        return [row for row in rows if row["status"] not in _HARMFUL]

    def _load(self, identity: str, max_pixels: int | None) -> "Captioner":
        """Load the captioner that rows name; raise UsageError if it is not the one at hand."""
        options = replace(self._choice.captioner, max_pixels=max_pixels)
        settings = self._settings.get(identity, {})
        if search := settings.get("search"):
            options = replace(options, search=SearchOptions(**search))
        if (precision := settings.get("precision")) in PRECISIONS:
            options = replace(options, precision=precision)
        calibration = kept_calibration(str(self._scope.out.root), options)
        options = replace(options, calibration=calibration)
        if (found := identify(options)) != identity:
            raise UsageError(f"{options.checkpoint} is {found}: give another --checkpoint")
        return load_captioner(options)

    def _compare(self, row: CaptionRow, now: CaptionRow) -> str:
        """Return the count that an image belongs to; tell if its row differs."""
        if now.image_sha256 is None:
            is_same = row.image_sha256 is None and row.status == now.status
            return "same" if is_same else "unavailable"
        if Status.TOO_LARGE in (row.status, now.status):  # by the limits of another run
            return "same" if row.status == now.status else "unavailable"
        if row.image_sha256 != now.image_sha256:
            return "changed"
        differences = [
            f"{name} is {getattr(row, name)}, now {getattr(now, name)}"
            for name in _COMPARED
            if getattr(row, name) != getattr(now, name)
        ]
        if not differences and not _is_close(row.confidence, now.confidence):
            differences = [f"confidence is {row.confidence}, now {now.confidence}"]
        if differences:
            what = f"{row.image_uri}: {'; '.join(differences)}"
            self._scope.fault(Kind.SAMPLE, self._scope.out.captions, what, _REMEDY)
        return "different" if differences else "same"


def _limits_of(out: OutFolder) -> tuple[int, int | None]:
    """Return the bytes and the pixels of an image that the last run allowed, or else the defaults.

    That run may have had other rows than those of a sample.
    """
    for folder in run_folders(out)[-1:]:
        run = RunFolder(out, folder.name)
        with suppress(FileNotFoundError, ValueError):
            job = tomllib.loads(run.storage.read_bytes(run.job_file).decode())
            return job.get("max_bytes", MAX_BYTES), job.get("max_pixels")
    return MAX_BYTES, None


def settings_of(file: TableFile) -> dict[str, Mapping[str, Any]]:
    """Return the settings of the captioners that a file names, by identity."""
    return dict(json.loads((file.schema.metadata or {})[CAPTIONERS]))


@dataclass(frozen=True)
class _Again:
    """A captioner at work on images that have rows by it."""

    captioner: "Captioner"
    max_bytes: int

    def captioned(self, rows: Sequence[CaptionRow]) -> Iterator[tuple[CaptionRow, CaptionRow]]:
        """Yield each row with the one that its image would get now."""
        settings = WorkerSettings(CaptionerOptions(), self.max_bytes)
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            partitions = PartitionCaptioner(self.captioner, settings, "")
            captioned = partitions.caption([_record(row) for row in some], StageTimes())
            if captioned.unavailable:
                raise captioned.unavailable
            for row, now in zip(some, captioned.rows, strict=True):
                yield row, self._beside_former(row, now)

    def _beside_former(self, row: CaptionRow, now: CaptionRow) -> CaptionRow:
        """Return a row with its confidence as that of a second opinion, if the other one is."""
        if row.former is None or now.status != Status.OK:
            return now
        return second_opinion(now, replace(row, **row.former, former=None), self.captioner)


def _record(row: CaptionRow) -> ImageRecord:
    try:
        return ImageRecord(row.image_uri, row.image_version, parquet_member(row.image_uri))
    except ValueError:  # no URI that this package makes: it is not found
        return ImageRecord(row.image_uri, row.image_version)


def _is_close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)
