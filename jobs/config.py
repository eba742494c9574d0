"""JobConfig: a job, from flags and a TOML job file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from captioner.jobs.config_values import (
    is_count,
    is_list_of_text,
    is_number,
    is_path,
    is_probability,
    is_table_of_tables,
    is_text,
    share_of,
)
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.storage.uris import (
    STANDARD_INPUT,
    image_uri,
    is_local,
    local_path,
    scheme_with_password,
)
from captioner.jobs.toml_file import read_toml, toml_value
from captioner.options import HF, SEND_PIXELS, CaptionerOptions, server_from_environment
from captioner.schemas.caption_table import Status
from captioner.search_options import MIN_CHARACTERS, SearchOptions

DEVICES = ("auto", "cpu", "cuda")
STALE = ("keep", "redo")
FAILURES = tuple(str(status) for status in Status if status != Status.OK)
RETRIABLE = tuple(kind for kind in FAILURES if kind not in (Status.UNREADABLE, Status.TOO_LARGE))
PRICES = ("input", "output", "request")  # of a million tokens, and of one request
SECOND = {  # options of a second opinion in the same job
    *("checkpoint", "redo_below", "redo_share", "where", "limit", "stale", "language", "prompt"),
    *("trust_remote_code", "send_pixels", "beam_size", "max_characters", "batch_size"),
    *("partition_size", "workers", "device", "max_requests", "max_cost", "prices"),
}
_PLAIN: dict[str, Any] = {  # options of the first pass that the second must not have
    **dict.fromkeys(("min_confidence", "target_precision", "retry_failed", "batch_size")),
    **dict.fromkeys(("limit", "redo_below", "redo_share", "where", "max_requests")),
    **dict.fromkeys(("force", "prune", "embeddings"), False),
    "stale": "keep",
    "max_cost": None,
    "prices": {},
    "second": {},
}


@dataclass(frozen=True)
class JobConfig:
    """A job: caption the images of `source`, one or several, into the table in `out`.

    The fields are the keys of a job file and the options of `captioner run` (jobs/README.md).
    Relative paths, even in a job file, are relative to the working directory. An empty
    `retry_failed` stands for RETRIABLE. `storage_options` has the options of fsspec's file systems
    by protocol, such as {"s3": {"endpoint_url": "..."}}. No flag sets it and nothing writes it: it
    may hold secrets. Raises UsageError for an impossible value.
    """

    source: str | Path | Sequence[str | Path]
    out: str | Path
    checkpoint: str | Path = "flickr8k"
    language: str = "en"
    prompt: str | None = None
    trust_remote_code: bool = False
    send_pixels: int = SEND_PIXELS
    beam_size: int = 3
    max_characters: int = 125
    min_confidence: float | None = None
    target_precision: float | None = None
    batch_size: int | None = None
    partition_size: int = 500
    workers: int | None = None
    device: str = "auto"
    scheduler: str | None = None
    max_failures: str | int | float | None = None
    max_bytes: int = 256 * 1024 * 1024
    limit: int | None = None
    stale: str = "keep"
    retry_failed: Sequence[str] | None = None
    force: bool = False
    only: str | Path | None = None
    prune: bool = False
    exclude: Sequence[str] | None = None
    any_extension: bool = False
    uri_column: str | None = None
    image_column: str | None = None
    embeddings: bool = False
    redo_below: float | None = None
    redo_share: str | float | None = None
    where: str | None = None
    max_requests: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    storage_options: StorageOptions = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._check_paths()
        self._check_numbers()
        self._check_choices()
        self._check_inputs()
        _check_storage_options(self.storage_options)
        self._check_second_opinion()
        self._check_budget()
        self.failure_limit(0)
        self.second_job()

    def _check_paths(self) -> None:
        paths = [*(("source", each) for each in self.sources), ("out", self.out)]
        for name, path in paths:
            if protocol := scheme_with_password(str(path)):
                raise UsageError(
                    f"{name} must not contain a user and password, which would end up in OUT: "
                    f"put them into the table [storage_options.{protocol}] of a job file"
                )
        self._require("source", bool(self.sources), "a path, or a list of paths")
        for name, path in (*paths, ("checkpoint", self.checkpoint)):
            self._require(name, is_path(path), "a path")
        self._require("only", self.only is None or is_path(self.only), "a path")
        if [*map(str, self.sources), str(self.only)].count(STANDARD_INPUT) > 1:
            raise UsageError(
                f"{STANDARD_INPUT} is given twice: standard input can be read once only"
            )

    def _check_numbers(self) -> None:
        for name in ("beam_size", "partition_size", "max_bytes", "send_pixels"):
            self._require(name, is_count(getattr(self, name)), "a whole number above 0")
        room = is_count(self.max_characters) and self.max_characters >= MIN_CHARACTERS
        self._require("max_characters", room, f"a whole number of at least {MIN_CHARACTERS}")
        for name in ("min_confidence", "target_precision", "redo_below"):
            value = getattr(self, name)
            self._require(name, value is None or is_probability(value), "a number from 0 to 1")
        alone = self.min_confidence is None or self.target_precision is None
        self._require("min_confidence", alone, "omitted if target_precision is given")
        for name in ("batch_size", "workers", "limit", "max_requests"):
            value = getattr(self, name)
            self._require(name, value is None or is_count(value), "a number above 0")

    def _check_choices(self) -> None:
        self._require("device", self.device in DEVICES, " or ".join(DEVICES))
        address = self.scheduler is None or (isinstance(self.scheduler, str) and self.scheduler)
        self._require("scheduler", bool(address), "an address such as tcp://host:8786")
        self._require("stale", self.stale in STALE, " or ".join(STALE))
        kinds = self.retry_failed
        are_failures = kinds is None or (is_list_of_text(kinds) and set(kinds) <= set(FAILURES))
        self._require("retry_failed", are_failures, f"a list of: {', '.join(FAILURES)}")
        flags = ("any_extension", "embeddings", "prune", "force", "quiet", "trust_remote_code")
        for name in flags:
            self._require(name, isinstance(getattr(self, name), bool), "true or false")

    def _check_inputs(self) -> None:
        are_patterns = self.exclude is None or is_list_of_text(self.exclude)
        self._require("exclude", are_patterns, "a list of patterns")
        for name in ("uri_column", "image_column"):
            value = getattr(self, name)
            is_name = isinstance(value, str) and value != ""
            self._require(name, value is None or is_name, "the name of a column")
        self._require("prune", not (self.prune and self.only), "omitted if only is given")

    def _check_second_opinion(self) -> None:
        share = self.share
        is_share = self.redo_share is None or (share is not None and share <= 1)
        self._require("redo_share", is_share, "a share such as 20% or 0.2")
        alone = self.redo_below is None or self.redo_share is None
        self._require("redo_below", alone, "omitted if redo_share is given")
        for name in ("language", "prompt", "where"):
            value = getattr(self, name)
            self._require(name, value is None or is_text(value), "text")
        if not self.is_second_opinion:
            self._require("where", self.where is None, "omitted without redo_below or redo_share")
            return
        for name in ("force", "prune", "embeddings", "retry_failed"):
            is_off = getattr(self, name) in (False, None)
            self._require(name, is_off, "omitted if redo_below or redo_share is given")

    def _check_budget(self) -> None:
        self._require("prices", _are_prices(self.prices), f"a table of {', '.join(PRICES)}")
        cost = self.max_cost
        self._require("max_cost", cost is None or is_number(cost), "a number, 0 or above")
        priced = cost is None or any(self.prices.values())
        self._require("max_cost", priced, "omitted without a table of prices")
        for name in ("max_requests", "max_cost"):
            asks = self.captioner.asks_server or getattr(self, name) is None
            self._require(name, asks, "omitted unless the checkpoint begins with openai:")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(f"{name} must be {expected}, not {getattr(self, name)!r}")

    @property
    def sources(self) -> Sequence[str | Path]:
        """The one SOURCE, or all of them."""
        return self.source if isinstance(self.source, list | tuple) else (self.source,)

    @property
    def named_source(self) -> str | list[str]:
        """The one SOURCE, or all of them, as text."""
        return _one_or_list([*map(str, self.sources)])

    @property
    def retried(self) -> frozenset[str]:
        """The statuses of failed images to try again."""
        if self.retry_failed is None:
            return frozenset()
        return frozenset(self.retry_failed or RETRIABLE)

    @property
    def search(self) -> SearchOptions:
        """The options of the beam search."""
        return SearchOptions(beam_size=self.beam_size, max_characters=self.max_characters)

    @property
    def captioner(self) -> CaptionerOptions:
        """The options of the captioner, with the server that the environment names."""
        return CaptionerOptions(
            checkpoint=str(self.checkpoint),
            device=self.device,
            search=self.search,
            language=self.language,
            embeddings=self.embeddings,
            prompt=self.prompt,
            trust_remote_code=self.trust_remote_code,
            send_pixels=self.send_pixels,
            **server_from_environment(),
        )

    @property
    def is_second_opinion(self) -> bool:
        """Whether the job captions only images again whose caption is doubtful."""
        return self.redo_below is not None or self.redo_share is not None

    @property
    def share(self) -> Fraction | None:
        """The share of the images about which a second opinion is wanted, if it is given so."""
        return None if self.redo_share is None else share_of(self.redo_share)

    def second_job(self) -> "JobConfig | None":
        """Return the job of the table `second`, which follows this one; None without it."""
        if not self.second:
            return None
        is_table = isinstance(self.second, Mapping) and set(self.second) <= SECOND
        self._require("second", is_table, f"a table of {', '.join(sorted(SECOND))}")
        try:
            job = replace(self, **{**_PLAIN, **self.second})
        except UsageError as error:
            raise UsageError(f"in the table second, {error}") from error
        whole = "checkpoint" in self.second and job.is_second_opinion
        self._require("second", whole, "a table with checkpoint, and redo_below or redo_share")
        return job

    def failure_limit(self, images: int) -> int | None:
        """Return how many of `images` may fail; None if any number but all."""
        limit = self.max_failures
        if limit is None:
            return None
        fraction = share_of(limit)
        if fraction is not None:
            self._require("max_failures", fraction <= 1, "at most 100%")
            return int(fraction * images)
        is_count = str(limit).isdecimal() and not isinstance(limit, float)
        self._require("max_failures", is_count, "a count (10) or a share (5% or 0.05)")
        return int(limit)

    def resolved(self) -> "JobConfig":
        """Return the job with absolute local paths, which hold in any working directory."""
        out = str(self.out)
        return replace(
            self,
            source=_one_or_list([_absolute(str(each)) for each in self.sources]),
            out=Path(local_path(out)).absolute() if is_local(out) else out,
            only=None if self.only is None else _absolute(str(self.only)),
            checkpoint=_absolute_checkpoint(self.checkpoint),
        )

    def to_toml(self) -> str:
        """Return the job as a job file, without options that are not set and storage options."""
        names = [each.name for each in fields(self) if each.name != "storage_options"]
        values = {name: getattr(self, name) for name in names}
        known = {key: value for key, value in values.items() if value is not None and value != {}}
        return "".join(f"{key} = {toml_value(value)}\n" for key, value in known.items())


def load_config(flags: Mapping[str, Any], job_file: Path | None = None) -> JobConfig:
    """Return the job that a file and flags describe; flags win. UsageError names key and file."""
    known = [each.name for each in fields(JobConfig)]
    values = read_toml(job_file, known) if job_file else {}
    values |= flags
    for required in ("source", "out"):
        if required not in values:
            raise UsageError(f"no {required} given, neither as an argument nor in a job file")
    try:
        return JobConfig(**values)
    except UsageError as error:
        from_file = job_file and not any(str(error).startswith(f"{key} ") for key in flags)
        raise UsageError(f"{job_file}: {error}") if from_file else error from None


def storage_options_of(job_file: Path) -> StorageOptions:
    """Return the storage options of a job file, whatever else is in it."""
    values = read_toml(job_file, [each.name for each in fields(JobConfig)])
    options: StorageOptions = values.get("storage_options", {})
    _check_storage_options(options)
    return options


def _check_storage_options(options: object) -> None:
    if not is_table_of_tables(options):
        raise UsageError(
            "storage_options must be a table for each protocol, as in\n"
            '[storage_options.s3]\nendpoint_url = "..."'
        )


def _absolute(path: str) -> str:
    return path if path == STANDARD_INPUT else image_uri(path)


def _absolute_checkpoint(checkpoint: str | Path) -> str | Path:
    """Return a checkpoint with an absolute path if it names a directory."""
    kind = HF if str(checkpoint).startswith(HF) else ""
    path = Path(str(checkpoint).removeprefix(kind))
    return f"{kind}{path.absolute()}" if path.is_dir() else checkpoint


def _are_prices(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) <= set(PRICES)
        and all(map(is_number, value.values()))
    )


def _one_or_list(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
