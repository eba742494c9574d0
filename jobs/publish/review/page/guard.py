"""Who may talk to the page: requests that know the token, from this page, to this machine.

The token keeps other users and other pages out. Checking Host defeats pages whose name is made to
point at this machine (DNS rebinding); checking Origin, pages that send forms to it.
"""

import hmac
import socket
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from tornado.httputil import HTTPServerRequest

from captioner.jobs.storage.http.addresses import is_address

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "captioner",
}
_READING = ("GET", "HEAD")


def problem(request: HTTPServerRequest, token: str, right_token: str, host: str) -> str | None:
    """Return why a request is refused, or None; `host` is what the server is bound to."""
    if not hmac.compare_digest(token.encode(), right_token.encode()):
        return "this address is not valid, or no longer: open the one that the command printed"
    if not _is_ours(request.host, host):
        return "this server does not go by that name"
    origin = request.headers.get("Origin")
    if origin is None:
        return None if request.method in _READING else "a page must say where it comes from"
    if _parts(origin).netloc != request.host:
        return "the request comes from another page"
    return None


def _is_ours(name: str, bound_to: str) -> bool:
    """Return whether a Host is this machine: an address, or a name that only it decides about."""
    host = _parts(f"//{name}").hostname or ""
    if host in {"localhost", bound_to.lower(), socket.gethostname().lower()} - {""}:
        return True
    return is_address(host)


def _parts(url: str) -> SplitResult:
    """Return the parts of a URL, all empty for one that is malformed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
