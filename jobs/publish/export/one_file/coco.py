"""COCO's results: `[{"image_id": 391895, "caption": "..."}, ...]`, as its evaluation reads them."""

import re

from captioner.jobs.publish.export.job import ExportJob, Row
from captioner.jobs.publish.export.one_file.lines import Lines, as_json
from captioner.jobs.publish.export.policy import Action, Unfit
from captioner.jobs.storage.uris import file_name

ID_COLUMN = "image_id"  # of a manifest
_NAME = re.compile(r"(?:COCO_\w+_)?(\d+)\.\w+")  # COCO_val2014_000000391895.jpg, 000000391895.jpg


def coco_lines(job: ExportJob) -> Lines:
    """Return the format of COCO's results.

    An image's id is in the manifest's column `image_id`, or else the number that is its name.
    """
    columns = [ID_COLUMN] if ID_COLUMN in job.schema.names else []
    seen: dict[int, str] = {}

    def line(row: Row) -> str:
        number = _image_id(row)
        other = seen.setdefault(number, row["image_uri"])
        if other != row["image_uri"]:
            raise Unfit(f"image_id {number} is also that of {other}", Action.REVIEW)
        return as_json({"image_id": number, "caption": row["text"]})

    return Lines(line, columns, begin="[\n", between=",\n", end="\n]\n", decorative=False)


def _image_id(row: Row) -> int:
    if row.get(ID_COLUMN) is not None:
        try:
            return int(row[ID_COLUMN])
        except ValueError as error:
            raise Unfit(f"image_id {row[ID_COLUMN]!r} is not a number") from error
    match = _NAME.fullmatch(file_name(row["image_uri"]))
    if match is None:
        raise Unfit(f"no number as its name, and no column {ID_COLUMN}")
    return int(match[1])
