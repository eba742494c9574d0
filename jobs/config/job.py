"""JobConfig: a job, from flags and a TOML job file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from captioner.jobs.config.absolute import (
    absolute,
    absolute_checkpoint,
    with_absolute_checkpoint,
)
from captioner.jobs.config.checks import check_job, require
from captioner.jobs.config.gates import size_only
from captioner.jobs.config.second import PLAIN, SECOND
from captioner.jobs.config.values import RETRIABLE, bytes_of, share_of
from captioner.jobs.errors import UsageError
from captioner.jobs.messages import TEXT
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.jobs.storage.filesystems import StorageOptions
from captioner.jobs.storage.http.access import AccessRules, rules_of
from captioner.jobs.storage.signatures import without_signature
from captioner.jobs.storage.uris import is_local, local_path
from captioner.jobs.toml_file import check_keys, toml_value
from captioner.options import SEND_PIXELS, CaptionerOptions, server_from_environment
from captioner.precision import expected_device, fast_precision, precision_of
from captioner.schemas.caption_table import Status
from captioner.search_options import SearchOptions

IMAGE_SECONDS = 60.0  # to open an image, at most
# Images in a partition, at least 15 batches of a worker, which has nothing to decode while it waits
# for the last one and commits.
PARTITIONS = {"cpu": 500, "cuda": 5_000}


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
    partition_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    precision: str = "auto"
    scheduler: str | None = None
    wait_for_workers: float | None = None
    send_secrets: bool = False
    max_failures: str | int | float | None = None
    count_all_failures: bool = False
    max_bytes: int | str = MAX_BYTES
    max_pixels: int | None = None
    image_timeout: float = IMAGE_SECONDS
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
    allow_host: Sequence[str] = ()
    allow_private: bool = False
    redo_below: float | None = None
    redo_share: str | float | None = None
    where: str | None = None
    max_requests: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)
    empty_ok: bool = False
    keep_runs: int = 100
    gates: Mapping[str, Any] = field(default_factory=dict)
    metrics: str | Path | None = None
    log_format: str = TEXT
    json: bool = False
    quiet: bool = False
    storage_options: StorageOptions = field(default_factory=dict, repr=False)
    calibration: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.max_bytes, str) and (size := bytes_of(self.max_bytes)):
            object.__setattr__(self, "max_bytes", size)  # in a frozen dataclass
        check_job(self)
        self.failure_limit(0)
        self.second_job()

    @property
    def sources(self) -> Sequence[str | Path]:
        """The one SOURCE, or all of them."""
        return self.source if isinstance(self.source, list | tuple) else (self.source,)

    @property
    def named_source(self) -> str | list[str]:
        """The one SOURCE, or all of them, as text without signatures."""
        return _one_or_list([without_signature(str(each)) for each in self.sources])

    @property
    def retried(self) -> frozenset[str]:
        """The statuses of failed images to try again."""
        if self.is_second_opinion:
            return frozenset()
        named = () if self.retry_failed is None else self.retry_failed or RETRIABLE
        return frozenset({Status.OUT_OF_MEMORY, *named})

    @property
    def access_rules(self) -> AccessRules:
        """Which hosts may be asked for images, and with which headers."""
        urls = [*map(str, self.sources), *([] if self.only is None else [str(self.only)])]
        return rules_of(urls, self.allow_host, self.allow_private, self.storage_options)

    @property
    def most_in_partition(self) -> int:
        """The most images in a partition: more for a model of this package on GPUs here."""
        is_ours = self.scheduler is None and not CaptionerOptions(str(self.checkpoint)).kind
        device = expected_device(self.device) if is_ours else "cpu"
        return self.partition_size or PARTITIONS[device]

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
            precision=self._precision(),
            search=self.search,
            language=self.language,
            max_pixels=self.max_pixels,
            embeddings=self.embeddings,
            prompt=self.prompt,
            trust_remote_code=self.trust_remote_code,
            send_pixels=self.send_pixels,
            calibration=self.calibration,
            **server_from_environment(),
        )

    def _precision(self) -> str:
        """Return the precision of all workers; those of a cluster may be of different kinds."""
        if self.precision != "auto" or CaptionerOptions(str(self.checkpoint)).kind:
            return self.precision
        return "float32" if self.scheduler else fast_precision(self.device)

    @property
    def actual_precision(self) -> str | None:
        """The precision in which the captioner computes; None for one that asks a server."""
        return precision_of(self.captioner)

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
            job = replace(self, **{**PLAIN, "gates": size_only(self.gates), **self.second})
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

    def allows(self, failed: int, images: int) -> bool:
        """Return whether a number of the images may fail."""
        limit = self.failure_limit(images)
        if limit is None:  # any number, as long as one image succeeds
            limit = max(images - 1, 0)
        return failed <= limit

    def resolved(self) -> "JobConfig":
        """Return the job with absolute local paths, which hold in any working directory."""
        out = str(self.out)
        return replace(
            self,
            source=_one_or_list([absolute(str(each)) for each in self.sources]),
            out=Path(local_path(out)).absolute() if is_local(out) else out,
            only=None if self.only is None else absolute(str(self.only)),
            metrics=self.metrics and Path(local_path(str(self.metrics))).absolute(),
            checkpoint=absolute_checkpoint(self.checkpoint),
            second=with_absolute_checkpoint(self.second),
        )

    def to_toml(self) -> str:
        """Return the job as a job file, without what is not set, storage options and signatures."""
        names = [name for name in keys() if name != "storage_options"]
        values = {name: getattr(self, name) for name in names} | {"source": self.named_source}
        values["only"] = None if self.only is None else without_signature(str(self.only))
        known = {key: value for key, value in values.items() if value not in (None, {}, ())}
        return "".join(f"{key} = {toml_value(value)}\n" for key, value in known.items())


def keys() -> list[str]:
    """Return the keys of a job file."""
    return [each.name for each in fields(JobConfig) if each.name != "calibration"]


def _one_or_list(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
