"""The table's texts, written where people use them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from captioner.jobs.publish.export.html.site import export_html
from captioner.jobs.publish.export.job import ExportJob, Outcome
from captioner.jobs.publish.export.one_file.coco import coco_lines
from captioner.jobs.publish.export.one_file.lines import Lines, export_lines
from captioner.jobs.publish.export.one_file.opensearch import opensearch_lines
from captioner.jobs.publish.export.one_file.tables import csv_lines, hf_lines, jsonl_lines
from captioner.jobs.publish.export.record import Record, opened_record
from captioner.jobs.publish.export.sidecars import Sidecars, export_sidecars, txt_sidecars
from captioner.jobs.publish.export.webdataset import export_webdataset
from captioner.jobs.publish.export.xmp import xmp_sidecars
from captioner.jobs.storage.backends.paths import OutPath, out_path
from captioner.jobs.storage.failures import job_errors

Export: TypeAlias = Callable[[ExportJob, Record], Iterator[Outcome]]


def export(job: ExportJob) -> Iterator[Outcome]:
    """Export the texts of a table; yield what was done, or would be, with each image or file.

    Nothing happens before the outcomes are taken. A dry run writes nothing. Raise UsageError,
    TemporaryError if another export of this format is at work on the table.
    """
    name = None if job.to_stdout else job.format
    with job_errors(job.out.root):
        job.out.require_table()  # before a record is made beside it
        with opened_record(job.out, name, dry_run=job.dry_run) as record:
            yield from _EXPORTS[job.format](job, record)


def _one_file(lines: Callable[[ExportJob], Lines]) -> Export:
    def run(job: ExportJob, record: Record) -> Iterator[Outcome]:
        return export_lines(job, record, lines(job), _file(job))

    return run


def _file(job: ExportJob) -> OutPath | None:
    """Return the file to write; None for standard output."""
    if job.to_stdout:
        return None
    path = out_path(str(job.to))
    path = path.resolve() if isinstance(path, Path) else path
    return path / "metadata.csv" if job.format == "hf" else path


def _sidecars(sidecars: Callable[[], Sidecars]) -> Export:
    def run(job: ExportJob, record: Record) -> Iterator[Outcome]:
        return export_sidecars(job, record, sidecars())

    return run


_EXPORTS: Mapping[str, Export] = {
    "csv": _one_file(csv_lines),
    "jsonl": _one_file(jsonl_lines),
    "coco": _one_file(coco_lines),
    "hf": _one_file(hf_lines),
    "opensearch": _one_file(opensearch_lines),
    "txt": _sidecars(txt_sidecars),
    "xmp": _sidecars(xmp_sidecars),
    "html": export_html,
    "webdataset": export_webdataset,
}
