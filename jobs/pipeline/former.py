"""Second opinions: what becomes of a row of the table when another captioner has spoken."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioner.caption import Caption
from captioner.jobs.storage.backends.backend import backend_of
from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder
from captioner.schemas.caption_table import (
    CaptionRow,
    Declined,
    Former,
    Status,
    caption_table_schema,
    with_schema,
)
from captioner.schemas.image_record import IMAGE_URI, REPLACES

if TYPE_CHECKING:
    from captioner.captioner import Captioner

_TRANSIENT = (Status.TIMEOUT, Status.FETCH_FAILED, Status.OUT_OF_MEMORY)
_COLUMNS = [field.name for field in fields(CaptionRow)]


def read_former_rows(run: RunFolder, plan: pa.Table) -> Mapping[str, CaptionRow]:
    """Read the rows that the images of a plan have in the table, by URI."""
    rows: dict[str, CaptionRow] = {}
    for name in pc.unique(plan[REPLACES]).to_pylist():
        uris = plan.filter(pc.equal(plan[REPLACES], name))[IMAGE_URI]
        found = _rows_of(run.out.captions / name, uris.combine_chunks())
        rows |= {row[IMAGE_URI]: CaptionRow(**row) for row in found.to_pylist()}
    return rows


def _rows_of(path: OutPath, uris: pa.Array) -> pa.Table:
    storage = backend_of(path)
    with storage.open_parquet(storage.open(path)) as file:
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
    rows = pq.read_table(
        storage.open(path), columns=columns, filters=pc.field(IMAGE_URI).isin(uris)
    )
    return with_schema(rows, caption_table_schema()).select(_COLUMNS)


def second_opinion(row: CaptionRow, former: CaptionRow, captioner: "Captioner") -> CaptionRow:
    """Return the row of an image that had a row by another captioner.

    A new caption keeps the former one beside it, with a confidence in the light of both. If there
    is no caption, and trying again would not help, the former row stays and says who declined.
    """
    if not _is_same_image(row, former) or row.status in _TRANSIENT:
        return replace(row, former=None)
    if row.status != Status.OK:
        declined = Declined(captioner=row.captioner, error=row.error or "")
        return replace(former, declined=declined)
    first = _first_caption(former)
    confidence = row.confidence
    if row.former is None and first["caption"]:  # else its confidence knows of both already
        caption = _caption(row)
        confidence = captioner.confidence_beside(caption, first["caption"], first["confidence"])
    return replace(row, confidence=confidence, former=first)


def _is_same_image(row: CaptionRow, former: CaptionRow) -> bool:
    """Return whether an image is the one that the former row is about, as far as is known."""
    if row.image_sha256 is None:  # it was not fetched
        return row.image_version in (None, former.image_version)
    return row.image_sha256 == former.image_sha256


def _first_caption(former: CaptionRow) -> Former:
    """Return the caption of the first captioner, which another may have replaced before."""
    return former.former or Former(
        caption=former.caption, confidence=former.confidence, captioner=former.captioner
    )


def _caption(row: CaptionRow) -> Caption:
    log_probs = row.token_log_probs
    return Caption(
        text=row.caption or "",
        confidence=row.confidence,
        log_prob=row.log_prob,
        token_log_probs=None if log_probs is None else tuple(log_probs),
    )
