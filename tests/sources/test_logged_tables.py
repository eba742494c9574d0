"""Folders of tables whose log says which rows count."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.jobs.errors import UsageError
from captioner.jobs.sources.open_source import open_source
from tests.support.files import uris

LOGS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Iceberg": "metadata/00000-x.metadata.json",
    "Hudi": ".hoodie/hoodie.properties",
}


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("data", ["0.parquet", "year=2024/0.parquet", "data/0.parquet"])
def test_a_table_with_a_log_is_refused_by_name(tmp_path: Path, kind: str, data: str) -> None:
    for name in (LOGS[kind], data):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pq.write_table(pa.table({"image_uri": ["a.jpg"]}), tmp_path / data)
    folders = {tmp_path, tmp_path / "data"} if data.startswith("data/") else {tmp_path}
    for folder in folders:
        with pytest.raises(UsageError, match=rf"is a table of {kind}: .*export"):
            open_source(folder)
    assert uris(tmp_path / data) == [str((tmp_path / data).parent / "a.jpg")]


def test_images_beside_a_log_are_images(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "a.jpg").touch()
    assert uris(tmp_path) == [str(tmp_path / "a.jpg")]
