"""JobConfig: a job, from flags and a TOML job file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from captioner.jobs.config_checks import check_job, check_storage_options, require
from captioner.jobs.config_values import RETRIABLE, share_of
from captioner.jobs.errors import UsageError
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.storage.uris import (
    STANDARD_INPUT,
    image_uri,
    is_local,
    local_path,
)
from captioner.jobs.toml_file import check_keys, read_toml, toml_value
from captioner.options import HF, OPENAI, SEND_PIXELS, CaptionerOptions, server_from_environment
from captioner.search_options import SearchOptions

SECOND = {  # options of a second opinion in the same job
    *("checkpoint", "redo_below", "redo_share", "where", "limit", "stale", "language", "prompt"),
    *("trust_remote_code", "send_pixels", "beam_size", "max_characters", "batch_size"),
    *("partition_size", "workers", "device", "max_requests", "max_cost", "prices"),
}
_PLAIN: dict[str, Any] = {  # options of the first pass that the second must not have
    **dict.fromkeys(("min_confidence", "target_precision", "retry_failed", "batch_size")),
    **dict.fromkeys(("limit", "redo_below", "redo_share", "where", "max_requests", "prompt")),
    **dict.fromkeys(("force", "prune", "embeddings", "trust_remote_code"), False),
    "stale": "keep",
    "max_cost": None,
    "prices": {},
    "second": {},
    "calibration": None,
}


@dataclass(frozen=True)
class JobConfig:
    """A job: caption the images of `source`, one or several, into the table in `out`.

    The fields are the keys of a job file and the options of `captioner run` (jobs/README.md).
    Relative paths, even in a job file, are relative to the working directory. An empty
    `retry_failed` stands for RETRIABLE. `storage_options` has the options of fsspec's file systems
    by protocol, such as {"s3": {"endpoint_url": "..."}}. No flag sets it and nothing writes it: it
    may hold secrets. `calibration` is what a run finds in OUT for its captioner, not in job files.
    Raises UsageError for an impossible value.
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
    calibration: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_job(self)
        self.failure_limit(0)
        self.second_job()

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
            calibration=self.calibration,
            **server_from_environment(),
        )

    @property
    def is_second_opinion(self) -> bool:
        """Whether the job captions only images again whose caption is doubtful."""
        return self.redo_below is not None or self.redo_share is not None

    @property
    def share(self) -> Fraction | None:
        """The share of the images that want a second opinion; None if no share is given."""
        return None if self.redo_share is None else share_of(self.redo_share)

    def second_job(self) -> "JobConfig | None":
        """Return the job of the table `second`, which follows this one; None without it."""
        if not self.second:
            return None
        require(self, "second", isinstance(self.second, Mapping), "a table")
        check_keys(self.second, SECOND, "in the table second")
        try:
            job = replace(self, **{**_PLAIN, **self.second})
        except UsageError as error:
            raise UsageError(f"in the table second, {error}") from error
        whole = "checkpoint" in self.second and job.is_second_opinion
        require(self, "second", whole, "a table with checkpoint, and redo_below or redo_share")
        return job

    def failure_limit(self, images: int) -> int | None:
        """Return how many of `images` may fail; None if any number but all."""
        limit = self.max_failures
        if limit is None:
            return None
        fraction = share_of(limit)
        if fraction is not None:
            require(self, "max_failures", fraction <= 1, "at most 100%")
            return int(fraction * images)
        is_count = str(limit).isdecimal() and not isinstance(limit, float)
        require(self, "max_failures", is_count, "a count (10) or a share (5% or 0.05)")
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
            second=_with_absolute_checkpoint(self.second),
        )

    def to_toml(self) -> str:
        """Return the job as a job file, without options that are not set and storage options."""
        names = [name for name in _keys() if name != "storage_options"]
        values = {name: getattr(self, name) for name in names}
        known = {key: value for key, value in values.items() if value is not None and value != {}}
        return "".join(f"{key} = {toml_value(value)}\n" for key, value in known.items())


def load_config(flags: Mapping[str, Any], job_file: Path | None = None) -> JobConfig:
    """Return the job that a file and flags describe; flags win. UsageError names key and file."""
    values = read_toml(job_file, _keys()) if job_file else {}
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
    values = read_toml(job_file, _keys())
    options: StorageOptions = values.get("storage_options", {})
    check_storage_options(options)
    return options


def _keys() -> list[str]:
    """Return the keys of a job file."""
    return [each.name for each in fields(JobConfig) if each.name != "calibration"]


def _absolute(path: str) -> str:
    return path if path == STANDARD_INPUT else image_uri(path)


def _absolute_checkpoint(checkpoint: str | Path) -> str | Path:
    """Return a checkpoint with an absolute path if it names a directory."""
    if str(checkpoint).startswith(OPENAI):
        return checkpoint
    kind = HF if str(checkpoint).startswith(HF) else ""
    path = Path(str(checkpoint).removeprefix(kind))
    return f"{kind}{path.absolute()}" if path.is_dir() else checkpoint


def _with_absolute_checkpoint(second: Mapping[str, Any]) -> Mapping[str, Any]:
    if "checkpoint" not in second:
        return second
    return {**second, "checkpoint": str(_absolute_checkpoint(second["checkpoint"]))}


def _one_or_list(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
