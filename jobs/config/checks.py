"""Whether a job is possible: UsageError names the option and what it must be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from captioner.jobs.config.gates import check_gates
from captioner.jobs.config.values import (
    A_SIZE,
    DEVICES,
    FAILURES,
    PRICES,
    STALE,
    is_count,
    is_host,
    is_list_of_text,
    is_number,
    is_path,
    is_probability,
    is_table_of_tables,
    is_text,
    shown,
)
from captioner.jobs.errors import UsageError
from captioner.jobs.messages import FORMATS
from captioner.jobs.storage.uris import STANDARD_INPUT, is_local, scheme_with_password
from captioner.options import PRECISIONS, is_language
from captioner.search_options import MIN_CHARACTERS

if TYPE_CHECKING:
    from captioner.jobs.config.job import JobConfig


def check_job(job: "JobConfig") -> None:
    """Raise UsageError for an option that has an impossible value, or does not fit another."""
    for check in (_check_paths, _check_numbers, _check_choices, _check_inputs):
        check(job)
    check_storage_options(job.storage_options)
    _ = job.access_rules  # which may miss a host
    check_gates(job.gates)
    _check_second_opinion(job)
    _check_budget(job)


def require(job: "JobConfig", name: str, holds: bool, expected: str) -> None:
    """Raise UsageError unless something `holds` about an option, which must be as `expected`."""
    if not holds:
        raise UsageError(f"{name} must be {expected}, not {shown(getattr(job, name))}")


def _check_paths(job: "JobConfig") -> None:
    paths = [*(("source", each) for each in job.sources), ("out", job.out)]
    for name, path in paths:
        if protocol := scheme_with_password(str(path)):
            raise UsageError(
                f"{name} must not contain a user or password, which would end up in OUT: "
                f"put them into the table [storage_options.{protocol}] of a job file"
            )
    require(job, "source", bool(job.sources), "a path, or a list of paths")
    for name, path in (*paths, ("checkpoint", job.checkpoint)):
        require(job, name, is_path(path), "a path")
    for name in ("only", "metrics"):
        value = getattr(job, name)
        require(job, name, value is None or is_path(value), "a path")
    is_here = job.metrics is None or is_local(str(job.metrics))
    require(job, "metrics", is_here, "a path on this machine")
    if [*map(str, job.sources), str(job.only)].count(STANDARD_INPUT) > 1:
        raise UsageError(f"{STANDARD_INPUT} is given twice: standard input can be read once only")


def _check_numbers(job: "JobConfig") -> None:
    for name in ("beam_size", "send_pixels", "keep_runs"):
        require(job, name, is_count(getattr(job, name)), "a whole number above 0")
    require(job, "max_bytes", is_count(job.max_bytes), A_SIZE)
    room = is_count(job.max_characters) and job.max_characters >= MIN_CHARACTERS
    require(job, "max_characters", room, f"a whole number of at least {MIN_CHARACTERS}")
    for name in ("min_confidence", "target_precision", "redo_below"):
        value = getattr(job, name)
        require(job, name, value is None or is_probability(value), "a number from 0 to 1")
    require(job, "redo_below", job.redo_below != 0, "above 0")
    seconds = job.image_timeout
    require(job, "image_timeout", is_number(seconds) and seconds > 0, "seconds, a number above 0")
    alone = job.min_confidence is None or job.target_precision is None
    _refuse_unless(alone, "min_confidence must be omitted if target_precision is given")
    for name in ("batch_size", "partition_size", "workers", "limit", "max_pixels", "max_requests"):
        value = getattr(job, name)
        require(job, name, value is None or is_count(value), "a number above 0")


def _check_choices(job: "JobConfig") -> None:
    require(job, "device", job.device in DEVICES, " or ".join(DEVICES))
    require(job, "precision", job.precision in PRECISIONS, " or ".join(PRECISIONS))
    address = job.scheduler is None or (isinstance(job.scheduler, str) and job.scheduler)
    require(job, "scheduler", bool(address), "an address such as tls://host:8786, a file, or env")
    is_here = job.workers is None or job.scheduler is None
    _refuse_unless(is_here, "workers must be omitted if scheduler is given: it has its own")
    patience = job.wait_for_workers
    is_time = patience is None or (is_number(patience) and patience > 0)
    require(job, "wait_for_workers", is_time, "a number of seconds above 0")
    require(job, "stale", job.stale in STALE, " or ".join(STALE))
    kinds = job.retry_failed
    are_failures = kinds is None or (is_list_of_text(kinds) and set(kinds) <= set(FAILURES))
    require(job, "retry_failed", are_failures, f"some of {', '.join(FAILURES)}")
    require(job, "log_format", job.log_format in FORMATS, " or ".join(FORMATS))
    flags = ("any_extension", "embeddings", "prune", "force", "quiet", "trust_remote_code")
    more = ("allow_private", "send_secrets", "empty_ok", "json", "count_all_failures")
    for name in (*flags, *more):
        require(job, name, isinstance(getattr(job, name), bool), "true or false")


def _check_inputs(job: "JobConfig") -> None:
    are_patterns = job.exclude is None or is_list_of_text(job.exclude)
    require(job, "exclude", are_patterns, "a list of patterns")
    are_hosts = is_list_of_text(job.allow_host) and all(map(is_host, job.allow_host))
    require(job, "allow_host", are_hosts, "a list of hosts such as 10.0.0.7:8080, or s3://bucket")
    for name in ("uri_column", "image_column"):
        value = getattr(job, name)
        is_name = isinstance(value, str) and value != ""
        require(job, name, value is None or is_name, "the name of a column")
    code = "an ISO 639-1 code, two lower-case letters such as en"
    require(job, "language", is_language(job.language), code)
    require(job, "prompt", job.prompt is None or is_text(job.prompt), "text")
    unencodable = [n for n in ("checkpoint", "prompt") if not _is_encodable(str(getattr(job, n)))]
    _refuse_unless(not unencodable, f"{' '.join(unencodable)} has characters that UTF-8 lacks")
    _refuse_unless(not (job.prune and job.only), "prune must be omitted if only is given")


def _check_second_opinion(job: "JobConfig") -> None:
    share = job.share
    is_share = job.redo_share is None or (share is not None and share <= 1)
    require(job, "redo_share", is_share, "a share such as 20% or 0.2")
    alone = job.redo_below is None or job.redo_share is None
    _refuse_unless(alone, "redo_below must be omitted if redo_share is given")
    require(job, "where", job.where is None or is_text(job.where), "text")
    if not job.is_second_opinion:
        wanted = (
            "where needs redo_below or redo_share; with a redo_below of 1, it takes all rows that "
            "match"
        )
        _refuse_unless(job.where is None, wanted)
        return
    for name in ("force", "prune", "embeddings", "retry_failed"):
        is_off = getattr(job, name) in (False, None)
        _refuse_unless(is_off, f"{name} does not go with redo_below or redo_share: omit it")


def _is_encodable(text: str) -> bool:
    return text.encode(errors="ignore").decode() == text


def _refuse_unless(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _check_budget(job: "JobConfig") -> None:
    require(job, "prices", _are_prices(job.prices), f"a table of {', '.join(PRICES)}")
    cost = job.max_cost
    require(job, "max_cost", cost is None or is_number(cost), "a number, 0 or above")
    priced = cost is None or any(job.prices.values())
    _refuse_unless(
        priced,
        "max_cost needs prices: put prices = { input = ..., output = ... }, of a million tokens, "
        "into a job file",
    )
    for name in ("max_requests", "max_cost"):
        asks = job.captioner.asks_server or getattr(job, name) is None
        _refuse_unless(asks, f"{name} is for a checkpoint that begins with openai: omit it")


def check_storage_options(options: object) -> None:
    """Raise UsageError unless the options are a table for each protocol."""
    if not is_table_of_tables(options):
        raise UsageError(
            "storage_options must be a table for each protocol, as in\n"
            '[storage_options.s3]\nendpoint_url = "..."'
        )


def _are_prices(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) <= set(PRICES)
        and all(map(is_number, value.values()))
    )
