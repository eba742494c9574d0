"""What went wrong, in words, whichever package raised it."""

import errno
import socket
import ssl
from email.utils import formatdate
from time import time
from types import SimpleNamespace
from typing import Any

import pytest

from captioner.jobs.storage.attempts.faults import Fault, fault_of, retry_after
from captioner.jobs.storage.failures import reason


class _Wrapped(Exception):
    """An error of aiohttp about a connection: it has the real one inside."""

    def __init__(self, os_error: Exception) -> None:
        super().__init__("Cannot connect to host example.org:443 ssl:default [None]")
        self.os_error = os_error


class _OfStore(OSError):
    """An error of s3fs, whose cause has the answer."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(errno.EIO, "Please reduce your request rate.")
        cause: Any = Exception("An error occurred")
        metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
        cause.response = {"Error": {"Code": code}, "ResponseMetadata": metadata}
        self.__cause__ = cause


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "no"), "the connection was refused"),
        (
            ConnectionResetError(104, "no"),
            "the connection was closed before the answer was complete",
        ),
        (OSError(errno.ENETUNREACH, "no"), "the host cannot be reached"),
        (socket.gaierror(socket.EAI_AGAIN, "no"), "the name of the host could not be looked up"),
        (socket.gaierror(socket.EAI_NONAME, "no"), "no host has this name"),
        (ssl.SSLError("wrong version"), None),
        (TimeoutError(), "no answer in time"),
    ],
)
def test_a_connection_that_failed_is_said_in_words(error: Exception, text: str | None) -> None:
    for each in (error, _Wrapped(error)):
        assert fault_of(each) is Fault.DOWN
        assert text is None or reason(each) == text


def test_an_error_that_says_something_itself_is_shown_as_it_is() -> None:
    assert reason(TimeoutError("after 3 bytes")) == "after 3 bytes"
    assert reason(OSError("of some store")) == "of some store"
    assert fault_of(OSError("of some store")) is Fault.BROKEN


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (503, "SlowDown", Fault.BUSY),
        (429, "TooManyRequests", Fault.BUSY),
        (503, "ServiceUnavailable", Fault.DOWN),
        (500, "InternalError", Fault.BROKEN),
        (400, "ExpiredToken", Fault.EXPIRED),
        (403, "RequestTimeTooSkewed", Fault.EXPIRED),
        (400, "RequestTimeout", Fault.DOWN),
        (400, "InvalidArgument", Fault.FINAL),
    ],
)
def test_an_answer_of_a_store_is_judged_by_its_code(status: int, code: str, fault: Fault) -> None:
    error = _OfStore(status, code)
    assert fault_of(error) is fault
    if status >= 500:
        assert reason(error) == f"the server answered {status} {code}"
    cut = reason(_OfStore(500, "500"))  # what botocore makes of a list that ends too early
    assert cut == "the server answered 500 Internal Server Error, or its answer was cut"


def test_how_long_to_wait_is_a_number_or_a_date() -> None:
    def asked(value: str) -> float | None:
        return retry_after(_OfStore(503, "SlowDown", **{"retry-after": value}))

    assert asked("7") == 7.0
    assert 90 < (asked(formatdate(time() + 100, usegmt=True)) or 0) <= 100
    assert asked(formatdate(0, usegmt=True)) == 0.0
    assert asked("soon") is None
    assert asked("Mon, 1 Jan 99999999999 00:00:00 GMT") is None
    error: Any = Exception()
    error.response = SimpleNamespace(headers={"Retry-After": "3"})  # as azure has it
    assert retry_after(error) == 3.0
    assert retry_after(OSError()) is None
