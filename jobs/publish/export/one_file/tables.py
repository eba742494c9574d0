"""CSV and JSON lines with chosen columns, and the metadata of a folder of images."""

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.job import ExportJob, Row
from captioner.jobs.publish.export.locations import Locations
from captioner.jobs.publish.export.one_file.lines import Lines, as_json
from captioner.jobs.publish.export.policy import Unfit
from captioner.jobs.publish.spreadsheets import guarded
from captioner.jobs.storage.file_types import container_of


def csv_lines(job: ExportJob) -> Lines:
    """Return the format of CSV files, whose cells no spreadsheet takes for formulas."""
    columns = job.chosen_columns()

    def line(row: Row) -> str:
        shown = {**row, "image_uri": job.locations.shown(row["image_uri"])}
        return csv_line([_guarded(cell(shown[name])) for name in columns])

    return Lines(line, columns, begin=csv_line(columns))


def jsonl_lines(job: ExportJob) -> Lines:
    """Return the format of JSON lines."""
    columns = job.chosen_columns()

    def line(row: Row) -> str:
        shown = {**row, "image_uri": job.locations.shown(row["image_uri"])}
        return f"{as_json({name: shown[name] for name in columns})}\n"

    return Lines(line, columns)


def hf_lines(job: ExportJob) -> Lines:
    """Return the format of metadata.csv in an ImageFolder of Hugging Face's datasets."""
    others = [name for name in job.chosen_columns(()) if name != "text"]

    def line(row: Row) -> str:
        name = _name_in_folder(str(job.to), row["image_uri"])
        return csv_line([name, row["text"], *(cell(row[each]) for each in others)])

    begin = csv_line(["file_name", "text", *others])
    return Lines(line, others, begin=begin, decorative=False)


def _name_in_folder(folder: str, uri: str) -> str:
    try:
        if container_of(uri) == uri:
            return Locations(folder).name(uri)
    except Unfit:
        pass
    raise UsageError(
        f"{uri} is not a file below {folder}: an ImageFolder has its images below the folder of "
        "metadata.csv; give that folder with --to, or choose its images with --where"
    )


def csv_line(cells: Sequence[object]) -> str:
    """Return a line of a CSV file."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def cell(value: Any) -> object:
    """Return a value for a CSV file; times in ISO 8601, lists as JSON."""
    if isinstance(value, datetime):
        return value.isoformat()
    return as_json(value) if isinstance(value, list | dict) else value


def _guarded(value: object) -> object:
    return guarded(value) if isinstance(value, str) else value
