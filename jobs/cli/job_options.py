"""The options of a job on the command line, by field of JobConfig, with their help."""

import argparse
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from captioner.jobs.config.job import JobConfig
from captioner.jobs.config.values import A_SIZE, DEVICES, FAILURES, STALE, bytes_of
from captioner.jobs.errors import UsageError
from captioner.jobs.messages import FORMATS
from captioner.jobs.storage.file_types import MAX_BYTES
from captioner.options import PRECISIONS, CaptionerOptions, server_from_environment
from captioner.search_options import SearchOptions


def whole(text: str) -> int:
    """Return the whole number that an argument is."""
    if not text.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Return the whole number above 0 that an argument is."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def number(text: str) -> float:
    """Return the number that an argument is."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def size(text: str) -> int:
    """Return the bytes that an argument says, with or without a unit."""
    found = bytes_of(text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be {A_SIZE}, not {text!r}")
    return found


SOURCE_HELP = (
    "directory, glob, image, manifest, tar archive, Parquet of images (or a directory of them), S3 "
    "Inventory, or - for a manifest on standard input; several are one collection"
)
FLAGS: dict[str, dict[str, Any]] = {  # by field of JobConfig
    "checkpoint": {
        "help": "bundled model, model directory, hf:NAME_OR_DIRECTORY of Hugging Face, or "
        "openai:MODEL of a server",
        "metavar": "NAME",
    },
    "language": {"help": "of captions, a code of ISO 639-1", "metavar": "CODE"},
    "prompt": {"help": "the question to an hf: or openai: captioner", "metavar": "TEXT"},
    "trust_remote_code": {"help": "run code that comes with an hf: model", "action": "store_true"},
    "send_pixels": {"help": "longer side of images for a server", "metavar": "N", "type": whole},
    "beam_size": {"help": "beams of the search", "metavar": "N", "type": whole},
    "max_characters": {"help": "longest caption, with full stop", "metavar": "N", "type": whole},
    "batch_size": {"help": "images per pass through the network", "metavar": "N", "type": whole},
    "partition_size": {"help": "the most images in one file", "metavar": "N", "type": whole},
    "workers": {"help": "processes (one per core)", "metavar": "N", "type": whole},
    "device": {"help": "where the network runs", "choices": DEVICES},
    "precision": {"help": "the precision in which the network computes", "choices": PRECISIONS},
    "scheduler": {
        "help": "use the workers of a running Dask cluster: an address, a scheduler file, or env "
        "for $DASK_SCHEDULER_ADDRESS",
        "metavar": "ADDRESS",
    },
    "wait_for_workers": {
        "help": "exit with 75 after this long without a usable worker (600 with --scheduler, else "
        "60)",
        "metavar": "SECONDS",
        "type": number,
    },
    "send_secrets": {
        "help": "send storage options and keys to workers even without encryption",
        "action": "store_true",
    },
    "min_confidence": {"help": "mark captions below it for review", "metavar": "P", "type": number},
    "target_precision": {
        "help": "mark captions for review so that, by the model's calibration, this share of the "
        "others is acceptable",
        "metavar": "P",
        "type": number,
    },
    "max_failures": {
        "help": "exit with 3 above this count or share of failed images, such as 10 or 5%% "
        "(default: only if all fail)",
        "metavar": "N",
    },
    "count_all_failures": {
        "help": "count all failed rows of the table in --max-failures, not only this run's",
        "action": "store_true",
    },
    "max_bytes": {
        "help": "largest image file to read: bytes, or a size such as 20MB or 512KiB (256MiB)",
        "metavar": "N",
        "type": size,
    },
    "max_pixels": {"help": "largest image to decode, in pixels", "metavar": "N", "type": whole},
    "image_timeout": {"help": "longest to open an image", "metavar": "SECONDS", "type": number},
    "limit": {"help": "caption at most N images", "metavar": "N", "type": whole},
    "stale": {"help": "captions by another model or with other settings", "choices": STALE},
    "retry_failed": {
        "help": f"caption failed images again: those with these statuses ({', '.join(FAILURES)}), "
        "or, if none is named, all but unreadable, unsupported, too_large, refused and rejected",
        "metavar": "STATUS",
        "nargs": "*",
    },
    "force": {"help": "caption images again even if they have a row", "action": "store_true"},
    "only": {
        "help": "of SOURCE, only the images in this file, one path or URL a line; - for standard "
        "input",
        "metavar": "LIST",
    },
    "prune": {"help": "remove rows of images that SOURCE no longer lists", "action": "store_true"},
    "exclude": {
        "help": "leave out files and folders by name (raw) or by path below SOURCE (2024/**/raw/), "
        "in addition to thumbnails, previews and deleted files; '' includes those",
        "metavar": "GLOB",
        "action": "append",
    },
    "any_extension": {"help": "count every file and object as an image", "action": "store_true"},
    "uri_column": {"help": "column of a manifest with the images", "metavar": "NAME"},
    "image_column": {"help": "column of a Parquet file with the images", "metavar": "NAME"},
    "allow_host": {
        "help": "a host from which images may be fetched although its address is private, or a "
        "bucket such as s3://bucket that lists by HTTP may name; may be repeated",
        "metavar": "HOST",
        "action": "append",
    },
    "allow_private": {
        "help": "fetch images from private addresses, too, if a list names them",
        "action": "store_true",
    },
    "redo_below": {
        "help": "second opinion: caption only images again whose caption is less certain",
        "metavar": "P",
        "type": number,
    },
    "redo_share": {
        "help": "second opinion: caption only the least certain share again, such as 20%%",
        "metavar": "SHARE",
    },
    "where": {"help": "second opinion: only for rows that match", "metavar": "CONDITION"},
    "max_requests": {"help": "the most requests to a server", "metavar": "N", "type": whole},
    "max_cost": {
        "help": "the most to spend on a server, by the prices in the job file",
        "metavar": "N",
        "type": number,
    },
    "empty_ok": {"help": "a source without images is no error", "action": "store_true"},
    "keep_runs": {"help": "how many run folders to keep in OUT", "metavar": "N", "type": whole},
    "metrics": {
        "help": "write metrics for Prometheus to FILE, every 15 seconds and when the job ends",
        "metavar": "FILE",
    },
    "log_format": {"help": "of messages on stderr", "choices": FORMATS},
    "json": {"help": "print the result as JSON", "action": "store_true"},
    "embeddings": {
        "help": "also write what each image looks like, for `captioner search --like` and "
        "`captioner duplicates`",
        "action": "store_true",
    },
}
OUT_HELP = "folder of the caption table and its runs: a path, or a URL such as s3://bucket/prefix"
_CAPTIONER = (
    *("checkpoint", "language", "prompt", "trust_remote_code", "send_pixels"),
    *("device", "precision"),
)
_SEARCH = ("beam_size", "max_characters")


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of a job; those that are not given are not in the result."""
    for name, _, flag in _flags(FLAGS):
        parser.add_argument(name, **flag, default=argparse.SUPPRESS)


def add_captioner(parser: argparse.ArgumentParser, *, without: Collection[str] = ()) -> None:
    """Add the options that choose and set up a captioner, for `captioner_of`."""
    for name, default, flag in _flags({*_CAPTIONER, *_SEARCH} - {*without}):
        parser.add_argument(name, **flag, default=default)


def _flags(names: Collection[str]) -> list[tuple[str, Any, dict[str, Any]]]:
    """Return the name, default and other arguments of options, in the order of JobConfig."""
    found = []
    for option in fields(JobConfig):
        if option.name in FLAGS and option.name in names:
            flag = dict(FLAGS[option.name])
            if option.default not in (None, False, (), MAX_BYTES):
                flag["help"] += f" ({option.default})"
            found.append((f"--{option.name.replace('_', '-')}", option.default, flag))
    return found


def captioner_of(options: dict[str, Any]) -> CaptionerOptions:
    """Return the captioner that options describe; UsageError for an impossible search."""
    try:
        search = SearchOptions(**{name: options[name] for name in _SEARCH})
    except ValueError as error:
        raise UsageError(str(error)) from error
    values = {name: options[name] for name in _CAPTIONER if name in options}
    return CaptionerOptions(**values, search=search, **server_from_environment())
