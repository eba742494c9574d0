"""A captioner whose answers attack, through the pipeline: rows that are ok or rejected."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from captioner.caption import Alternative, Caption
from captioner.captioner import Captioner, Measure
from captioner.house_rules import HouseRules
from captioner.image import DecodedImage, decode_image
from captioner.jobs.pipeline.partition import PartitionCaptioner
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.pipeline.stage_times import StageTimes
from captioner.options import CaptionerOptions
from captioner.schemas.caption_table import CaptionRow, Status
from captioner.schemas.image_record import ImageRecord
from tests.support.hostile import HOSTILE
from tests.support.photographs import photograph
from tests.support.rows import write_rows
from tests.support.tables import read_table


class Attacker(Captioner):
    """A captioner that answers with hostile texts, one for each image."""

    identity, batch_size = "attacker@0", 8
    house_rules = HouseRules(language="en")
    settings: Mapping[str, object] = {}

    def __init__(self) -> None:
        self.texts = iter(HOSTILE)

    def prepare(self, image: bytes | Image.Image) -> DecodedImage:
        return decode_image(image, 16)

    def answer(self, images: Sequence[DecodedImage], measure: Measure) -> list[Caption]:
        others = tuple(Alternative(text, -2.0) for text in (*HOSTILE, "A cat sits on a mat."))
        return [Caption(next(self.texts), 0.5, -1.0, (-1.0,), others) for _ in images]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionRow]:
    folder = tmp_path_factory.mktemp("photos")
    records = []
    for number in range(len(HOSTILE)):
        (folder / f"{number:03d}.jpg").write_bytes(photograph(number))
        records.append(ImageRecord(str(folder / f"{number:03d}.jpg"), None))
    settings = WorkerSettings(CaptionerOptions(), 20_000_000)
    partitions = PartitionCaptioner(Attacker(), settings, "run")
    return list(partitions.caption(records, StageTimes()).rows)


def is_plain(text: str) -> bool:
    kinds = {*map(unicodedata.category, text)}
    return text.isprintable() and not kinds & {"Cc", "Cf", "Cs", "Co", "Cn"}


def test_each_image_has_a_row_that_is_ok_or_rejected(rows: list[CaptionRow]) -> None:
    assert [Path(row.image_uri).stem for row in rows] == [f"{n:03d}" for n in range(len(HOSTILE))]
    assert {row.status for row in rows} == {Status.OK, Status.REJECTED}
    for row in rows:
        text = row.caption if row.status == Status.OK else row.error
        assert text and is_plain(text) and len(text) <= 300
        assert (row.caption is None) == (row.status == Status.REJECTED) == (row.error is not None)


def test_no_caption_and_no_alternative_has_markup_or_an_address(rows: list[CaptionRow]) -> None:
    texts = {row.caption for row in rows if row.caption}
    texts |= {each["caption"] for row in rows for each in row.alternatives or ()}
    assert "A dog runs." in texts and "A cat sits on a mat." in texts
    for text in texts:
        assert not set("<>{}|\\`*") & set(text)
        assert not any(part in text for part in ("://", "@", "HYPERLINK", "unk", "sorry"))
        assert is_plain(text) and len(text) <= 125


def test_the_table_takes_the_rows(rows: list[CaptionRow], tmp_path: Path) -> None:
    write_rows(tmp_path, rows)
    table = read_table(tmp_path)
    assert table["caption"].to_pylist() == [row.caption for row in rows]
    assert table["error"].to_pylist() == [row.error for row in rows]
