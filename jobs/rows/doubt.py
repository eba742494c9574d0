"""How doubtful each row of the table is, on disk, in the order of its file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from captioner.jobs.rows.decided import NEEDED, decided, plain_rows, row_schema
from captioner.jobs.rows.where import Where, parse_where
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.keys import DOUBTS, Doubts
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import opened_files
from captioner.jobs.table.reviews import Decisions, decisions
from captioner.schemas.caption_table import Status

_JUDGED = ("status", "confidence", "captioner", "former", "declined")
_HAS_ANSWER = pa.array([Status.OK, Status.REJECTED], pa.string())


@dataclass(frozen=True)
class Asked:
    """The captioner to ask, by its identity, and the condition that rows must match.

    With `again`, it is asked again where its answer was with other settings.
    """

    captioner: str
    where: str | None = None
    again: bool = False

    @property
    def any_settings(self) -> str:
        """The beginning of the identities of this captioner, with any settings."""
        return self.captioner.rpartition("@")[0] + "@"


def doubts_of(out: OutFolder, asked: Asked, folder: Path) -> Mapping[OutPath, Doubts]:
    """Return how doubtful the rows of each file are, to a captioner that may be asked about them.

    Only rows that match its condition are doubtful, and only if a captioner has answered. Rows
    about which a person has decided, and those about which this captioner has spoken, are done: it
    must not be asked. Raise UsageError for a condition that is wrong. `folder` needs room for 5
    bytes a row.
    """
    if not out.table_files():
        return {}
    schema = row_schema(out)
    condition = parse_where(asked.where, schema) if asked.where else None
    wanted = {*_JUDGED, *NEEDED, *(condition.columns if condition else ())}
    of_table = pa.schema([field for field in schema if field.name in wanted])
    in_force = decisions(out)
    doubts: dict[OutPath, Doubts] = {}
    for number, (path, file) in enumerate(opened_files(out.table_files())):
        rows = file.metadata.num_rows
        of_file = np.memmap(folder / f"doubts-{number}", DOUBTS, "w+", shape=max(rows, 1))[:rows]
        start = 0
        for plain in plain_rows(path, file, of_table):
            of_file[start : start + len(plain)] = _doubts(plain, in_force, asked, condition)
            start += len(plain)
        doubts[path] = of_file
    return doubts


def _doubts(rows: pa.Table, in_force: Decisions, asked: Asked, where: Where | None) -> Doubts:
    """Return the doubts about rows: NaN where nobody need be asked."""
    rows = decided(rows, in_force)
    former, declined = (rows[name].combine_chunks() for name in ("former", "declined"))
    captioner = rows["captioner"].combine_chunks()
    is_second = pc.and_(pc.is_valid(former), pc.starts_with(captioner, asked.any_settings))
    first = pc.if_else(is_second, pc.struct_field(former, "confidence"), rows["confidence"])
    spoken = pc.equal(captioner, asked.captioner)
    has_declined = pc.starts_with(pc.struct_field(declined, "captioner"), asked.any_settings)
    decided_now = pc.and_not(pc.is_valid(rows["decision"]), rows["outdated"])
    earlier = () if asked.again else (is_second, has_declined)
    doubts = np.empty(len(rows), DOUBTS)
    doubts["doubt"] = pc.fill_null(first, 0).to_numpy()
    doubts["done"] = _any(decided_now, spoken, *earlier)
    doubts["doubt"][~_any(pc.is_in(rows["status"], value_set=_HAS_ANSWER))] = np.nan
    if where:
        doubts["doubt"][~_matches(rows, where)] = np.nan
    return doubts


def _matches(rows: pa.Table, where: Where) -> npt.NDArray[np.bool_]:
    numbered = rows.append_column("row", pa.array(np.arange(len(rows))))
    matches = np.zeros(len(rows), bool)
    matches[numbered.filter(where.expression)["row"].to_numpy()] = True
    return matches


def _any(*masks: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    result = np.zeros(len(masks[0]), bool)
    for mask in masks:
        result |= np.asarray(pc.fill_null(mask, False))
    return result
