import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioner.schemas.caption_table import (
    SCHEMA_VERSION,
    Alternative,
    CaptionRow,
    Status,
    WordConfidence,
    caption_table_schema,
    file_metadata,
    passthrough_names,
    rows_to_table,
)

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
COLUMNS = [
    "image_uri", "image_version", "image_sha256", "width", "height", "format", "status", "error",
    "caption", "confidence", "needs_review", "word_confidence", "log_prob", "token_log_probs",
    "alternatives", "captioner", "run_id", "annotated_at", "former", "declined",
]  # fmt: skip


def row(status: Status = Status.OK, **values: object) -> CaptionRow:
    return CaptionRow("/a.jpg", "1-2", status, "tiny@0", "run", NOW, **values)  # type: ignore[arg-type]


def nothing_else(rows: int) -> pa.Table:
    return pa.table({"id": pa.array(range(rows), pa.int64())}).select([])


def test_the_columns_are_the_contracts_in_its_order() -> None:
    assert caption_table_schema().names == COLUMNS
    assert caption_table_schema(pa.schema([("id", pa.string())])).names == [*COLUMNS, "id"]


def test_a_table_of_failures_alone_has_the_same_schema_and_nulls_for_values() -> None:
    table = rows_to_table([row(Status.NOT_FOUND, error="no such file")], nothing_else(1), {})
    assert table.schema.equals(caption_table_schema(), check_metadata=False)
    (record,) = table.to_pylist()
    missing = {name for name, value in record.items() if value is None}
    assert missing == set(COLUMNS) - {
        "image_uri", "image_version", "status", "error", "captioner", "run_id", "annotated_at",
    }  # fmt: skip


def test_a_file_keeps_every_value_type_and_its_metadata(tmp_path: Path) -> None:
    caption = row(
        width=3,
        height=4,
        caption="A dog.",
        confidence=0.25,
        needs_review=True,
        word_confidence=[WordConfidence(word="dog", confidence=0.75)],
        log_prob=-1.5,
        token_log_probs=(-1.0, -0.5),
        alternatives=[Alternative(caption="A cat.", log_prob=-2.0)],
    )
    table = rows_to_table([caption], nothing_else(1), file_metadata({"tiny@0": {}}, None))
    pq.write_table(table, tmp_path / "part.parquet")
    read = pq.read_table(tmp_path / "part.parquet")
    assert read.schema.equals(caption_table_schema(), check_metadata=False)
    assert read.schema.metadata[b"schema_version"] == SCHEMA_VERSION.encode()
    assert json.loads(read.schema.metadata[b"captioners"]) == {"tiny@0": {}}
    (record,) = read.to_pylist()
    assert record["word_confidence"] == [{"word": "dog", "confidence": 0.75}]
    assert record["token_log_probs"] == [-1.0, -0.5]
    assert record["alternatives"] == [{"caption": "A cat.", "log_prob": -2.0}]
    assert record["annotated_at"] == NOW
    assert record["status"] == "ok"
    assert record["needs_review"] is True


def test_the_manifests_columns_stand_beside_their_rows() -> None:
    own = pa.table({"id": ["007", None]})
    table = rows_to_table([row(), row(Status.DENIED)], own, {})
    assert table["id"].to_pylist() == ["007", None]


def test_a_manifests_column_never_hides_one_of_the_tables() -> None:
    names = ["id", "caption", "WIDTH", "source_caption"]
    renamed = ["id", "source_caption", "source_WIDTH", "source_source_caption"]
    assert passthrough_names(names) == renamed
