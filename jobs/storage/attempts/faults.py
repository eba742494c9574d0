"""What went wrong with a request, whichever package sent it, and how grave it is."""

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

from captioner.jobs.errors import FetchError, MachineFault

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
REDIRECTS = (301, 302, 303, 307, 308)
_OVERLOADED = (502, 503, 504)  # answers of a proxy, or of a server that is not at work
NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
OF_MACHINE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)
CUT = (
    *("ServerDisconnectedError", "ClientPayloadError", "ConnectionClosedError", "IncompleteRead"),
    *("ResponseStreamingError", "AioResponseStreamingError"),
)
SLOW = ("ReadTimeoutError", "AioReadTimeoutError")
SLOW_TO_CONNECT = ("ConnectTimeoutError", "ConnectionTimeoutError")
# After one of these, a process cannot use its GPU any more, whatever it is given; or the GPU lacks
# memory even for one image: a batch for which it does is halved, by the captioner.
_OF_GPU = ("CUDA error", "cuDNN error", "CUDA out of memory")
_NONSENSE = (
    *("InvalidURL", "InvalidUrlClientError", "ParamValidationError", "ValueError"),
    *("InvalidUrlRedirectClientError", "NonHttpUrlRedirectClientError", "TooManyRedirects"),
)
# Codes of OpenSSL: not valid yet, expired, and two for an issuer that is not known here.
_OF_CLOCK_OR_AUTHORITIES = (9, 10, 19, 20)
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
    MACHINE = auto()  # this machine fails, whatever it is asked for


def fault_of(error: BaseException) -> Fault:
    """Return the kind of a failure that is neither missing nor denied."""
    status, code = http_status(error), error_code(error)
    if isinstance(error, MachineFault) or machine_fault(error):
        return Fault.MACHINE
    if code in _EXPIRED:
        return Fault.EXPIRED
    if status == HTTPStatus.TOO_MANY_REQUESTS or code in _THROTTLING:
        return Fault.BUSY
    if status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after(error) is not None:
        return Fault.BUSY
    if is_timeout(error) or status in _OVERLOADED or code == "RequestTimeout":
        return Fault.DOWN
    if (300 <= status < 500 or status >= 600) and status not in _TRANSIENT_4XX:
        return Fault.FINAL
    if (
        isinstance(error, (FetchError, MemoryError, *DAMAGE))
        or _is_nonsense(error)
        or has_bad_certificate(error)
    ):
        return Fault.FINAL
    return Fault.DOWN if _is_of_the_connection(error) else Fault.BROKEN


def _is_nonsense(error: BaseException) -> bool:
    """Return whether a URL cannot be asked for, as without a host, or with a port of letters."""
    return isinstance(error, UnicodeError) or type(error).__name__ in _NONSENSE


def is_timeout(error: BaseException) -> bool:
    """Return whether nothing came in time."""
    names = (*SLOW, *SLOW_TO_CONNECT)
    return any(
        isinstance(each, TimeoutError | asyncio.TimeoutError) or type(each).__name__ in names
        for each in chain_of(error)
    )


def machine_fault(error: BaseException) -> OSError | None:
    """Return the error in an error that says what this machine lacks, such as open files."""
    for each in reversed([*chain_of(error)]):
        if isinstance(each, OSError) and each.errno in OF_MACHINE:
            return each
        if isinstance(each, RuntimeError) and "start new thread" in str(each):
            return OSError(errno.EAGAIN, str(each))
        if isinstance(each, RuntimeError) and str(each).startswith(_OF_GPU):
            why = str(each).partition("\n")[0]  # what follows is advice for programmers
            return OSError(errno.EIO, f"{why} (look at the GPU, by nvidia-smi, and run again)")
    return None


def is_unknown_host(error: BaseException) -> bool:
    """Return whether the name of a host does not exist, as far as the name servers know."""
    return any(
        isinstance(each, socket.gaierror) and each.errno in NO_SUCH_NAME for each in chain_of(error)
    )


def has_bad_certificate(error: BaseException) -> bool:
    """Return whether a server has no valid certificate for its name."""
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in chain_of(error))


def may_be_of_this_machine(error: BaseException) -> bool:
    """Return whether a certificate may be valid, and the clock or the authorities here are not."""
    codes = (getattr(each, "verify_code", None) for each in chain_of(error))
    return any(code in _OF_CLOCK_OR_AUTHORITIES for code in codes)


def is_no_http(error: BaseException) -> bool:
    """Return whether an answer breaks the rules of HTTP; aiohttp gives it the status 400."""
    return any(type(each).__name__ == "HttpProcessingError" for each in chain_of(error))


def _is_of_the_connection(error: BaseException) -> bool:
    return any(
        isinstance(each, ConnectionError | socket.gaierror | ssl.SSLError)
        or type(each).__name__ in ("EndpointConnectionError", "ProxyConnectionError")
        or (isinstance(each, OSError) and each.errno in UNREACHABLE)
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
    if is_no_http(error):
        return 0
    for each in chain_of(error):
        if type(each).__name__ in CUT:  # for a cause, aiohttp has one with a status of its own
            return 0
        in_answer = answer_of(each).get("ResponseMetadata", {}).get("HTTPStatusCode")
        named = (getattr(each, name, None) for name in ("status", "status_code", "code"))
        for code in map(str, chain([in_answer], named)):
            if code.isdecimal() and 100 <= int(code) < 1000:
                return int(code)
    return 0


def error_code(error: BaseException) -> str:
    """Return the code that a store gave, such as SlowDown; "" without one."""
    for each in chain_of(error):
        code = answer_of(each).get("Error", {}).get("Code") or getattr(each, "error_code", None)
        if code:
            return str(code)
    return ""


def retry_after(error: BaseException) -> float | None:
    """Return the seconds that the host asks to wait, given as seconds or a date; None if it does
    not."""
    for each in chain_of(error):
        headers = answer_of(each).get("ResponseMetadata", {}).get("HTTPHeaders")
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


def answer_of(error: BaseException) -> Mapping[str, Any]:
    """Return the parsed answer in an error of botocore."""
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, Mapping) else {}
