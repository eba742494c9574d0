"""The lines of the `_bulk` request of OpenSearch and Elasticsearch."""

import re

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.job import DEFAULT_INDEX, ExportJob, Row
from captioner.jobs.publish.export.one_file.lines import Lines, as_json
from captioner.jobs.publish.export.record import mark_of

_INDEX = re.compile(r"[a-z0-9.][^A-Z\\/*?\"<>| ,#:\s]{0,254}")


def opensearch_lines(job: ExportJob) -> Lines:
    """Return two lines for each image: the action `index`, and the document.

    The document's id is the SHA-256 of the image's URI, which may be longer than an id may be.
    """
    index = DEFAULT_INDEX if job.index is None else job.index
    if not _INDEX.fullmatch(index) or index in (".", ".."):
        raise UsageError(f"--index must be a name in lower case such as captions, not {index!r}")
    columns = job.chosen_columns()

    def line(row: Row) -> str:
        action = {"index": {"_index": index, "_id": mark_of(row["image_uri"])}}
        shown = {**row, "image_uri": job.locations.shown(row["image_uri"])}
        return f"{as_json(action)}\n{as_json({name: shown[name] for name in columns})}\n"

    return Lines(line, columns)
