"""What went wrong with a request, in words for people."""

import asyncio
import socket
import ssl
from http import HTTPStatus

from captioner.jobs.storage.attempts.faults import (
    CUT,
    NO_SUCH_NAME,
    REDIRECTS,
    SLOW,
    SLOW_TO_CONNECT,
    UNREACHABLE,
    chain_of,
    error_code,
    http_status,
    is_no_http,
)


def description(error: BaseException, seconds: float | None = None) -> str | None:
    """Return what happened to a request, in words; None for an error that says it itself.

    `seconds` is how long it took, if that is known.
    """
    texts = [text for each in chain_of(error) if (text := _of_connection(each, seconds))]
    if texts:
        return texts[-1]  # the innermost
    return "the answer is not HTTP" if is_no_http(error) else _of_answer(error)


def _of_answer(error: BaseException) -> str | None:
    status = http_status(error)
    is_of_http = any(hasattr(each, "request_info") for each in chain_of(error))
    if not status or not (is_of_http or 300 <= status < 400 or status >= 500):
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    code = error_code(error)
    named = code if code and not code.isdecimal() else phrase
    what = ", a redirect that is not followed" if status in REDIRECTS else ""
    if code == "500":  # by botocore, also for a list that is cut
        what = ", or its answer was cut"
    return f"the server answered {status} {named}".rstrip() + what


def _of_connection(error: BaseException, seconds: float | None) -> str | None:
    name = type(error).__name__
    if type(error) is TimeoutError and str(error):
        return str(error)
    if isinstance(error, socket.gaierror):
        exists = error.errno not in NO_SUCH_NAME
        return "the name of the host could not be looked up" if exists else "no host has this name"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, OSError) and error.errno in UNREACHABLE:
        return "the host cannot be reached"
    if name in CUT or isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was closed before the answer was complete"
    return _of_url(error, name) or _of_time(error, name, seconds)


def _of_time(error: BaseException, name: str, seconds: float | None) -> str | None:
    within = "in time" if seconds is None else f"within {seconds:.0f} s"
    if name in SLOW_TO_CONNECT:
        return f"no connection {within}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or name in SLOW:
        return f"no answer {within}"
    return None


def _of_tls(error: ssl.SSLError) -> str | None:
    """Return what OpenSSL said; None for the errors of aiohttp around its own."""
    if why := getattr(error, "verify_message", None):
        return f"the server's certificate is not valid: {why}"
    why = getattr(error, "reason", None)
    return f"no connection by TLS: {why.lower().replace('_', ' ')}" if why else None


def _of_url(error: BaseException, name: str) -> str | None:
    if name == "TooManyRedirects":
        return "the server redirects again and again"
    if name.endswith("RedirectClientError"):
        return "the server redirects to what is no valid URL of HTTP"
    if name.startswith("InvalidU"):
        return f"this is no valid URL: {error}"
    if name == "ParamValidationError":
        why = "no bucket" if "bucket name" in str(error) else "no object"
        return f"{why} of S3 can have this name"
    return None
