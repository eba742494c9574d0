"""What went wrong with a request, whichever package sent it: how grave it is, and how to say it."""

import asyncio
import errno
import gzip
import socket
import ssl
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from http import HTTPStatus
from itertools import chain
from typing import Any

import pyarrow as pa

from captioner.jobs.errors import FetchError

# The codes of S3, Azure and others that ask for fewer requests, whatever the HTTP status.
_THROTTLING = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "TooManyRequestsException",
    "ServerBusy",
}
_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "TokenRefreshRequired",
}
_TRANSIENT_4XX = (408, 425, 429)  # the only 4xx statuses that are worth another attempt
_OVERLOADED = (502, 503, 504)  # answers of a proxy, or of a server that is not at work
_NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_CUT = (
    *("ServerDisconnectedError", "ClientPayloadError", "ConnectionClosedError", "IncompleteRead"),
    *("ResponseStreamingError", "AioResponseStreamingError"),
)
_SLOW = ("ReadTimeoutError", "AioReadTimeoutError")
_SLOW_TO_CONNECT = ("ConnectTimeoutError", "ConnectionTimeoutError")
_NONSENSE = ("InvalidURL", "InvalidUrlClientError", "ParamValidationError", "ValueError")
DAMAGE = (
    *(EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile),
    pa.ArrowException,
)


class Fault(Enum):
    """Kinds of failures, by what they say of the host and of what was asked for."""

    FINAL = auto()  # an answer about the image: no other attempt would do better
    BUSY = auto()  # the host asks for fewer requests
    BROKEN = auto()  # the host fails with this image, and perhaps with others
    DOWN = auto()  # no answer, or that of a host that is not at work
    EXPIRED = auto()  # credentials, or a clock, that fail with every image from now on


def fault_of(error: BaseException) -> Fault:
    """Return the kind of a failure that is neither missing nor denied."""
    status, code = http_status(error), error_code(error)
    if code in _EXPIRED:
        return Fault.EXPIRED
    if status == HTTPStatus.TOO_MANY_REQUESTS or code in _THROTTLING:
        return Fault.BUSY
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after(error) is not None:
        return Fault.BUSY
    if is_timeout(error) or status in _OVERLOADED or code == "RequestTimeout":
        return Fault.DOWN
    if 400 <= status < 500 and status not in _TRANSIENT_4XX:
        return Fault.FINAL
    if isinstance(error, (FetchError, *DAMAGE)) or _is_nonsense(error):
        return Fault.FINAL
    return Fault.DOWN if _is_of_the_connection(error) else Fault.BROKEN


def _is_nonsense(error: BaseException) -> bool:
    """Return whether a URL cannot be asked for, as without a host, or with a port of letters."""
    return isinstance(error, UnicodeError) or type(error).__name__ in _NONSENSE


def is_timeout(error: BaseException) -> bool:
    """Return whether nothing came in time."""
    names = (*_SLOW, *_SLOW_TO_CONNECT)
    return any(
        isinstance(each, TimeoutError | asyncio.TimeoutError) or type(each).__name__ in names
        for each in chain_of(error)
    )


def is_unknown_host(error: BaseException) -> bool:
    """Return whether the name of a host does not exist, as far as the name servers know."""
    return any(
        isinstance(each, socket.gaierror) and each.errno in _NO_SUCH_NAME
        for each in chain_of(error)
    )


def _is_of_the_connection(error: BaseException) -> bool:
    return any(
        isinstance(each, ConnectionError | socket.gaierror | ssl.SSLError)
        or type(each).__name__ in ("EndpointConnectionError", "ProxyConnectionError")
        or (isinstance(each, OSError) and each.errno in _UNREACHABLE)
        for each in chain_of(error)
    ) and not any(type(each).__name__ == "ClientPayloadError" for each in chain_of(error))


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those inside it, as aiohttp, botocore and s3fs wrap them."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = getattr(each, "kwargs", None)  # of botocore's errors
            of_botocore = inner.get("error") if isinstance(inner, Mapping) else None
            waiting += [each.__cause__, getattr(each, "os_error", None), of_botocore]


def http_status(error: BaseException) -> int:
    """Return the HTTP status in an error of aiohttp, botocore, gcsfs or azure; 0 if it has none."""
    for each in chain_of(error):
        if type(each).__name__ in _CUT:  # for a cause, aiohttp has one with a status of its own
            return 0
        in_answer = _answer(each).get("ResponseMetadata", {}).get("HTTPStatusCode")
        named = (getattr(each, name, None) for name in ("status", "status_code", "code"))
        for code in map(str, chain([in_answer], named)):
            if code.isdecimal() and 100 <= int(code) < 600:
                return int(code)
    return 0


def error_code(error: BaseException) -> str:
    """Return the code that a store gave, such as SlowDown; "" without one."""
    for each in chain_of(error):
        code = _answer(each).get("Error", {}).get("Code") or getattr(each, "error_code", None)
        if code:
            return str(code)
    return ""


def retry_after(error: BaseException) -> float | None:
    """Return the seconds that the host asks to wait, given as seconds or a date; None if it does
    not."""
    for each in chain_of(error):
        headers = _answer(each).get("ResponseMetadata", {}).get("HTTPHeaders")
        headers = headers or getattr(each, "headers", None)
        headers = headers or getattr(getattr(each, "response", None), "headers", None)
        value = headers.get("Retry-After") or headers.get("retry-after") if headers else None
        if value is not None:
            return _seconds(str(value).strip())
    return None


def _seconds(value: str) -> float | None:
    if value.isdecimal():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):  # no date, or one that no clock reaches
        return None


def _answer(error: BaseException) -> Mapping[str, Any]:
    """Return the parsed answer in an error of botocore."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, Mapping) else {}


def description(error: BaseException, seconds: float | None = None) -> str | None:
    """Return what happened to a request, in words; None for an error that says it itself.

    `seconds` is how long it took, if that is known.
    """
    texts = [text for each in chain_of(error) if (text := _of_connection(each, seconds))]
    if texts:
        return texts[-1]  # the innermost
    status = http_status(error)
    is_of_http = any(hasattr(each, "request_info") for each in chain_of(error))
    if not is_of_http and status < 500:
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    code = error_code(error)
    named = code if code and not code.isdecimal() else phrase
    return f"the server answered {status} {named}".rstrip()


def _of_connection(error: BaseException, seconds: float | None) -> str | None:
    name = type(error).__name__
    if type(error) is TimeoutError and str(error):
        return str(error)
    if isinstance(error, socket.gaierror):
        exists = error.errno not in _NO_SUCH_NAME
        return "the name of the host could not be looked up" if exists else "no host has this name"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return "the host cannot be reached"
    if name in _CUT or isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was closed before the answer was complete"
    if name.startswith("InvalidU"):
        return f"this is no valid URL: {error}"
    within = "in time" if seconds is None else f"within {seconds:.0f} s"
    if name in _SLOW_TO_CONNECT:
        return f"no connection {within}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or name in _SLOW:
        return f"no answer {within}"
    return None
