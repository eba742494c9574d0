"""The scheduler of a running Dask cluster, and what may be sent to its workers."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from distributed import Client
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import get_backend
from distributed.security import Security
from distributed.utils import silence_logging_cmgr

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import JobError, TemporaryError, UsageError
from captioner.jobs.messages import say, warn
from captioner.jobs.pipeline.settings import WorkerSettings, worker_settings
from captioner.jobs.storage.signatures import without_signature
from captioner.schemas.image_record import ImageRecord, records_of

CONNECT_SECONDS = 10
VARIABLE = "DASK_SCHEDULER_ADDRESS"
ENCRYPTED = ("tls://", "wss://", "inproc://")  # the last one is this process


def check_scheduler(config: JobConfig) -> None:
    """Raise what a job would raise because of its scheduler, before it lists its images."""
    assert config.scheduler
    sendable(config, worker_settings(config))
    with silent_dask():
        connect_scheduler(config.scheduler).close()


@contextmanager
def silent_dask() -> Iterator[None]:
    """Leave out what Dask logs: it warns of workers that take their time to end."""
    logger = logging.getLogger("distributed")
    former, logger.propagate = logger.propagate, False
    try:
        with silence_logging_cmgr(logging.CRITICAL):
            yield
    finally:
        logger.propagate = former


def connect_scheduler(scheduler: str) -> Client:
    """Return a client of the scheduler at an address, in a file, or in the environment ("env").

    Dask's configuration has its certificates. Raise UsageError if no address is there, or one that
    nobody could reach, TemporaryError if no scheduler answers.
    """
    address = scheduler_address(scheduler)
    _check_address(address)
    try:
        return Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, RuntimeError) as error:
        raise TemporaryError(f"no Dask scheduler answers at {address}: {error}") from error


def _check_address(address: str) -> None:
    try:
        scheme, place = parse_address(address, strict=True)
        get_backend(scheme)
        if scheme in ("tcp", "tls"):
            parse_host_port(place)
    except ValueError as error:
        raise UsageError(
            f"{address} is no address of a Dask scheduler ({error}): give one such as "
            "tls://host:8786"
        ) from error
    secret = Security().get_connection_args("client").get("ssl_context")
    if scheme in ("tls", "wss") and secret is None:
        raise UsageError(
            f"{address} needs certificates, and Dask's configuration has none: set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, and CLIENT__KEY and CLIENT__CERT beside it"
        )


def scheduler_address(scheduler: str) -> str:
    """Return the address that `--scheduler` means; see `connect_scheduler`."""
    if scheduler == "env":
        if not os.environ.get(VARIABLE):
            raise UsageError(f"--scheduler env: the variable {VARIABLE} is not set")
        return os.environ[VARIABLE]
    if "://" in scheduler:
        return scheduler
    path = Path(scheduler)
    if not path.exists():
        if ":" in scheduler and "/" not in scheduler:
            return f"tcp://{scheduler}"
        raise TemporaryError(
            f"no file {scheduler}, in which a scheduler would have left its address: start "
            "`dask scheduler --scheduler-file`, or give an address such as tls://host:8786"
        )
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except OSError as error:
        raise UsageError(f"cannot read {scheduler}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{scheduler} is not a file of a Dask scheduler: give the one that "
            "`dask scheduler --scheduler-file` writes, or an address"
        ) from error


def is_encrypted(address: str) -> bool:
    """Return whether nobody can read what is sent to a scheduler, nor send anything to it."""
    return address.startswith(ENCRYPTED)


def sendable(config: JobConfig, settings: WorkerSettings) -> WorkerSettings:
    """Return the settings that the workers of a job may be sent: no secret goes in the clear.

    Raise UsageError if there are storage options that would.
    """
    if not config.scheduler or config.send_secrets:
        return settings
    address = scheduler_address(config.scheduler)
    if is_encrypted(address):
        return settings
    if settings.storage_options or "@" in (settings.captioner.base_url or ""):
        raise UsageError(
            f"storage_options and passwords are secret, and {address} is not encrypted: use a "
            "scheduler with TLS, put them into the environment of the command and of its workers, "
            "or send them all the same with --send-secrets"
        )
    return replace(settings, captioner=replace(settings.captioner, api_key=None))


def check_sendable(config: JobConfig, images: pa.Table) -> None:
    """Raise JobError if images would be sent with their signed URLs, and anybody could read them.

    A run does not send them: its workers read the plan, a file in OUT.
    """
    if not config.scheduler or config.send_secrets:
        return
    address = scheduler_address(config.scheduler)
    if not is_encrypted(address) and any(map(_is_signed, records_of(images))):
        raise JobError(
            f"the sample has signed URLs, and {address} is not encrypted: use a scheduler with "
            "TLS, or send them all the same with --send-secrets"
        )


def _is_signed(record: ImageRecord) -> bool:
    container = record.member.container if record.member else ""
    url = record.access.url if record.access else None
    return url is not None or without_signature(container) != container


def tell_about(client: Client) -> None:
    """Print where the dashboard of a scheduler is, and whether strangers can reach it."""
    with suppress(KeyError):  # a scheduler without one
        say(f"Dask's dashboard is at {client.dashboard_link}", "dashboard")
    address = str(client.scheduler.address) if client.scheduler else ""
    if not is_encrypted(address):
        warn(
            f"{address} is not encrypted: whoever reaches it can read what the workers "
            "are sent, and run code on them; use TLS",
            "not_encrypted",
        )
