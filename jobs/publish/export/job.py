"""An export as it was asked for, and the rows that it judges."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.export.formats import BESIDE, FILES, FOLDERS, FORMATS
from captioner.jobs.publish.export.locations import Locations
from captioner.jobs.publish.export.policy import MAX_CHARACTERS, POLICY_COLUMNS, Policy, Verdict
from captioner.jobs.rows.decided import read_rows, row_schema
from captioner.jobs.rows.where import Where, parse_where
from captioner.jobs.storage.uris import is_local
from captioner.jobs.table.layout import OutFolder

Row = Mapping[str, Any]
DEFAULT_COLUMNS = ("image_uri", "text", "confidence", "decision")
DEFAULT_INDEX = "captions"
_SLICE = 8_192  # rows that are Python objects at a time
_TAKEN_BY = {  # options that only some formats take
    "columns": ("csv", "jsonl", "hf", "opensearch", "webdataset"),
    "base_url": ("csv", "jsonl", "opensearch", "html"),
    "root": ("csv", "jsonl", "opensearch", "html", *BESIDE),
    "index": ("opensearch",),
}


@dataclass(frozen=True)
class ExportJob:
    """An export of the table in `out`; the fields are the options of `captioner export`.

    Raise UsageError for options that do not fit together.
    """

    out: OutFolder
    format: str
    to: str | None = None  # None or "-" for standard output, or beside each image
    root: str | None = None
    base_url: str | None = None
    columns: Sequence[str] | None = None
    where: str | None = None
    index: str | None = None
    max_characters: int = MAX_CHARACTERS
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(f"--format must be one of {', '.join(FORMATS)}, not {self.format}")
        for option, formats in _TAKEN_BY.items():
            if getattr(self, option) is not None and self.format not in formats:
                name = option.replace("_", "-")
                raise UsageError(f"--{name} is for {', '.join(formats)}, not for {self.format}")
        self._check_places()
        if self.max_characters < 1:
            raise UsageError(f"--max-characters must be above 0, not {self.max_characters}")

    def _check_places(self) -> None:
        if self.format in FOLDERS and self.to in (None, "-"):
            raise UsageError(f"--format {self.format} needs --to FOLDER")
        if self.format not in FILES and self.to and not is_local(self.to):
            raise UsageError(
                f"--format {self.format} writes to a folder of this machine: {self.to}"
            )
        if self.format in BESIDE and (self.to is None) != (self.root is None):
            raise UsageError(
                "--to and --root belong together: below the folder --to, a file has the path that "
                "its image has below --root"
            )
        if self.base_url is not None and not re.match("https?://|/", self.base_url):
            raise UsageError(
                f"--base-url must be a URL such as https://example.org/photos, not {self.base_url}"
            )
        if self.format in FILES and (self.base_url is None) != (self.root is None):
            raise UsageError("--base-url and --root belong together: --root is the site's folder")

    @property
    def to_stdout(self) -> bool:
        return self.format in FILES and self.to in (None, "-")

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns that rows have."""
        return row_schema(self.out)

    @cached_property
    def locations(self) -> Locations:
        """Where images are, by their URIs."""
        return Locations(self.root, self.base_url)

    def chosen_columns(self, default: Sequence[str] = DEFAULT_COLUMNS) -> Sequence[str]:
        """Return the columns to export; UsageError for one that the table does not have."""
        columns = default if self.columns is None else self.columns
        for name in columns:
            if name not in self.schema.names:
                nearest = get_close_matches(name, self.schema.names, n=1, cutoff=0)[0]
                raise UsageError(f"--columns: no column {name!r}; did you mean {nearest}?")
        return columns

    def rows(
        self, columns: Collection[str] = (), *, decorative: bool = True
    ) -> Iterator[tuple[Row, Verdict]]:
        """Yield each row that --where chooses, with these columns, and the policy's verdict."""
        policy = Policy(self.max_characters, decorative)
        needed = list(dict.fromkeys((*POLICY_COLUMNS, *columns)))
        for table in read_rows(self.out, self.schema, needed, self._where):
            for start in range(0, table.num_rows, _SLICE):
                for row in _python_rows(table.slice(start, _SLICE)):
                    yield row, policy.judge(row)

    def uris(self) -> Iterator[Sequence[str]]:
        """Yield the URIs of the images that --where chooses, many at a time."""
        for table in read_rows(self.out, self.schema, ["image_uri"], self._where):
            yield table["image_uri"].to_pylist()

    @cached_property
    def _where(self) -> Where | None:
        return None if self.where is None else parse_where(self.where, self.schema)


def _python_rows(table: pa.Table) -> Iterator[Row]:
    for values in zip(*map(_python_values, table.columns), strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _python_values(column: pa.ChunkedArray) -> Sequence[Any]:
    try:
        values: Sequence[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        values = [_python_value(value) for value in column]
    return values


def _python_value(value: pa.Scalar) -> Any:
    """Return a value, or the text of one that Python cannot hold, such as a time after 9999."""
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        if pa.types.is_list(value.type):
            return [_python_value(each) for each in value]
        if pa.types.is_struct(value.type):
            return {name: _python_value(field) for name, field in value.items()}
        if pa.types.is_timestamp(value.type):  # this machine may not know its zone
            value = value.cast(pa.timestamp(value.type.unit, "UTC"))
        return value.cast(pa.string()).as_py()


@dataclass(frozen=True)
class Outcome:
    """What an export did, or would do, with an image, a tag of a page or a whole file.

    `images` is the number of images in a file; `diff` its changed lines in a dry run.
    """

    verdict: Verdict
    image_uri: str | None = None
    place: str | None = None
    images: int = 1
    diff: Sequence[str] = field(default=(), repr=False)
