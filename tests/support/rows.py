"""Tables of invented rows, which need no model."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.jobs.storage.backends.paths import out_path
from captioner.jobs.table.layout import OutFolder
from captioner.jobs.table.reviews import ReviewWriter
from captioner.schemas.caption_table import CaptionRow, Status, file_metadata, rows_to_table
from captioner.schemas.review import Decision, Review

CAPTIONER = "tiny@0123456789ab"


def row(uri: str, **values: Any) -> CaptionRow:
    """Return a row with a caption; `values` win over the invented ones."""
    defaults = {
        "image_version": "1",
        "image_sha256": f"sha of {uri}",
        "status": Status.OK,
        "captioner": CAPTIONER,
        "run_id": "20260101T000000-000000-0000",
        "annotated_at": datetime(2026, 1, 1, tzinfo=UTC),
        "width": 640,
        "height": 480,
        "format": "JPEG",
        "caption": f"A picture of {Path(uri).stem}.",
        "confidence": 0.5,
        "log_prob": -4.0,
    }
    return CaptionRow(image_uri=uri, **{**defaults, **values})


def write_rows(
    out: Path,
    rows: Sequence[CaptionRow],
    name: str = "20260101T000000-000000-0000-0",
    labels: Mapping[str, Sequence[Any]] | None = None,
    review: object = None,
) -> OutFolder:
    """Write a file of a table, with columns of a manifest; return OUT."""
    (out / "captions").mkdir(parents=True, exist_ok=True)
    passthrough = pa.table(dict(labels or {}))
    table = rows_to_table(rows, passthrough, file_metadata({CAPTIONER: {}}, review))
    pq.write_table(table, out / "captions" / f"{name}.parquet")
    return OutFolder(out_path(out))


def write_old_rows(out: Path, uris: Sequence[str], **columns: Sequence[Any]) -> OutFolder:
    """Write a file of a table of version 3, with columns of a manifest; return OUT."""
    folder = write_rows(out, [row(uri) for uri in uris], "1")
    (path,) = out.glob("captions/*.parquet")
    table = pq.read_table(path).drop_columns(["former", "declined", "word_confidence"])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return folder


def decide(
    out: OutFolder, uri: str, decision: str, text: str | None = None, **values: Any
) -> Review:
    """Save a decision by a session of its own."""
    review = Review(
        id="",
        image_uri=uri,
        decision=Decision(decision),
        text=text,
        **{
            "image_sha256": f"sha of {uri}",
            "caption": f"A picture of {Path(uri).stem}.",
            "confidence": 0.5,
            "captioner": CAPTIONER,
            "reviewer": "ann",
            "origin": "page",
            "reviewed_at": datetime.now(UTC),
            **values,
        },
    )
    (saved,) = ReviewWriter(out, "ann", "page").add([review])
    return saved


def write_judgements(out: Path, count: int) -> None:
    """Save decisions about `count` captions of the first captioner in OUT, right and wrong ones."""
    folder = OutFolder(out_path(out))
    captioner = pq.read_table(folder.table_files()[0], columns=["captioner"])["captioner"][0]
    for number in range(count):
        values = {"confidence": (number % 10) / 10, "captioner": captioner.as_py()}
        decide(folder, f"/{number}.jpg", "rejected" if number % 3 else "accepted", **values)
