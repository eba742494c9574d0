"""What people decided about captions, as judgements of their confidence."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captioner.calibration import Calibration, Floats
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.storage.failures import job_errors
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import closing, opened_files
from captioner.jobs.table.reviews import decisions
from captioner.schemas.caption_table import CAPTIONERS
from captioner.schemas.review import Decision


@dataclass(frozen=True)
class Judgements:
    """The captions that people accepted, edited or rejected, N in all.

    An edited or rejected caption is not acceptable. Decorative images say nothing about theirs.
    """

    captioners: tuple[str, ...]
    confidence: Floats  # [N], as the person saw it
    acceptable: npt.NDArray[np.bool_]  # [N]


def read_judgements(out: str | Path, calibration: Calibration | None = None) -> Judgements:
    """Read the judgements in OUT: all, or those of confidences from one calibration.

    Raise UsageError if there are none, or no table.
    """
    folder = OutFolder(out_path(out))
    with job_errors(folder.root):
        folder.require_table()
        rows = decisions(folder).reviews
        known = dict(calibrations(folder))
    kinds = [Decision.ACCEPTED, Decision.EDITED, Decision.REJECTED]
    rows = rows.filter(
        pc.field("confidence").is_valid()
        & pc.field("caption").is_valid()
        & pc.field("decision").isin(kinds)
    )
    if calibration is not None:
        values = calibration.to_json()
        same = [captioner for captioner, recorded in known.items() if recorded == values]
        rows = rows.filter(pc.field("captioner").isin(pa.array(same, pa.string())))
    if not len(rows):
        suffix = " of captions whose confidence comes from this checkpoint" if calibration else ""
        raise UsageError(f"{folder.reviews} has no decisions{suffix}: run `captioner review {out}`")
    return Judgements(
        captioners=tuple(rows["captioner"].unique().to_pylist()),
        confidence=rows["confidence"].to_numpy(),
        acceptable=pc.equal(rows["decision"], Decision.ACCEPTED).to_numpy(),
    )


def calibrations(out: OutFolder) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the captioners of the table that have a calibration, and the values of that."""
    for _, file in opened_files(out.table_files()):
        with closing(file):
            metadata = file.schema_arrow.metadata or {}
        for captioner, settings in json.loads(metadata.get(CAPTIONERS, b"{}")).items():
            if settings.get("calibration"):
                yield captioner, settings["calibration"]
