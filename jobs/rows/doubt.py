"""How doubtful each row of the table is, on disk, in the order of its file."""

import re
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
from captioner.jobs.table.keys import DONE, DOUBTS, FIRST, Doubts
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.read import opened_files
from captioner.jobs.table.reviews import Decisions, decisions
from captioner.schemas.caption_table import Status

_JUDGED = ("status", "confidence", "captioner", "former", "declined")
_HAS_ANSWER = pa.array([Status.OK, Status.REJECTED], pa.string())


@dataclass(frozen=True)
class Asked:
    """The captioner to ask, by its identity, and the condition that rows must match.

    With `again`, it is asked even where another captioner has given a second opinion, or this one
    has with other settings.
    """

    captioner: str
    where: str | None = None
    again: bool = False

    @property
    def any_settings(self) -> str:
        """A regular expression for the identities of this captioner, with any settings."""
        return f"^{re.escape(self.captioner.rpartition('@')[0])}@[0-9a-f]+$"


def doubts_of(out: OutFolder, asked: Asked, folder: Path) -> Mapping[OutPath, Doubts]:
    """Return how doubtful the rows of each file are, to a captioner that may be asked about them.

    Only rows that match its condition are doubtful, and only if a captioner has answered. Rows
    about which a person has decided, or that have a second opinion, are done: it must not be asked.
    Raise UsageError for a condition that is wrong. `folder` needs room for 5 bytes a row.
    """
    if not out.table_files():
        return {}
    schema = row_schema(out)
    condition = parse_where(asked.where, schema) if asked.where else None
    wanted = {*_JUDGED, *NEEDED, *(condition.columns if condition else ())}
    of_table = pa.schema([field for field in schema if field.name in wanted])
    in_force, path_of_all = decisions(out), folder / "doubts"
    rows: dict[OutPath, int] = {}
    with path_of_all.open("wb") as stored:  # one file, because each memory map needs a descriptor
        for path, file in opened_files(out.table_files()):
            rows[path] = file.metadata.num_rows
            for plain in plain_rows(path, file, of_table):
                _doubts(plain, in_force, asked, condition).tofile(stored)
    if not sum(rows.values()):
        return {}
    ends = np.cumsum(list(rows.values()))
    of_all = np.memmap(path_of_all, DOUBTS, "r")
    return {path: of_all[end - rows[path] : end] for path, end in zip(rows, ends, strict=True)}


def check_where(out: OutFolder, where: str) -> None:
    """Raise UsageError for a condition that is wrong, if OUT has a table to know its columns."""
    if out.storage.is_folder(out.captions) and out.table_files():
        parse_where(where, row_schema(out))


def _doubts(rows: pa.Table, in_force: Decisions, asked: Asked, where: Where | None) -> Doubts:
    """Return the doubts about rows: NaN where nobody need be asked."""
    rows = decided(rows, in_force)
    former, declined = (rows[name].combine_chunks() for name in ("former", "declined"))
    is_second = pc.is_valid(former)
    first = pc.if_else(is_second, pc.struct_field(former, "confidence"), rows["confidence"])
    doubts = np.empty(len(rows), DOUBTS)
    doubts[FIRST] = pc.fill_null(first, 0).to_numpy()
    doubts[DONE] = _is_done(rows, former, pc.struct_field(declined, "captioner"), asked)
    doubts[FIRST][~_any(pc.is_in(rows["status"], value_set=_HAS_ANSWER))] = np.nan
    if where:
        doubts[FIRST][~_matches(rows, where)] = np.nan
    return doubts


def _is_done(
    rows: pa.Table, former: pa.Array, declined_by: pa.Array, asked: Asked
) -> npt.NDArray[np.bool_]:
    """Return about which rows the captioner must not be asked."""
    decided_now = pc.and_not(pc.is_valid(rows["decision"]), rows["outdated"])
    speakers = (rows["captioner"], pc.struct_field(former, "captioner"), declined_by)
    spoken = [pc.equal(speaker, asked.captioner) for speaker in speakers]
    if asked.again:
        return _any(decided_now, *spoken)
    has_declined = pc.match_substring_regex(declined_by, asked.any_settings)
    return _any(decided_now, *spoken, pc.is_valid(former), has_declined)


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
