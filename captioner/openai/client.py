"""One exchange with a server: a question is posted, and a reply comes back in time or a Trouble."""

import asyncio
import math
import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from captioner.errors import CheckpointError
from captioner.openai.secrets import Secrets

BASE_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
MAX_BYTES = 1 << 20  # of a reply; the rest is cut off
MAX_PORT = 65535
GZIP_OR_ZLIB = zlib.MAX_WBITS + 32


class Trouble(Exception):
    """An exchange without a reply, or with one that another attempt may better.

    `is_busy` if the server has too much to do; `is_unreachable` if there may be no server. `blame`
    is how far the image may be at fault. `retry_after` is how many seconds the server wants us to
    wait.
    """

    def __init__(
        self,
        reason: str,
        *,
        is_busy: bool = False,
        is_unreachable: bool = False,
        blame: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.is_busy, self.is_unreachable = is_busy, is_unreachable
        self.blame, self.retry_after = blame, retry_after


@dataclass(frozen=True)
class Reply:
    """The status and the body of a reply, perhaps cut off; the body has no secrets."""

    status: int
    body: bytes
    retry_after: float | None = None

    def to_bytes(self) -> bytes:
        """Return the reply as bytes to keep."""
        return b"%d\n%b" % (self.status, self.body)

    @classmethod
    def from_bytes(cls, kept: bytes) -> "Reply":
        """Return the reply that `to_bytes` was called on."""
        status, _, body = kept.partition(b"\n")
        return cls(int(status), body)


class Client:
    """A client of one server; all calls belong to one event loop.

    `deadline` is in seconds, for a whole exchange. `name` is the server's address without secrets.
    Raises CheckpointError for an address or key that cannot be one, without naming it.
    """

    def __init__(self, base_url: str | None, api_key: str | None, deadline: float) -> None:
        url, key = _url(base_url or BASE_URL), (api_key or "").strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise CheckpointError("OPENAI_API_KEY is no key: it has spaces or special characters")
        user, password = url.username, url.password
        url = url.copy_with(username=None, password=None)
        self._url = url.copy_with(path=f"{url.path.rstrip('/')}/chat/completions")
        self.name = str(url.copy_with(query=None, fragment=None)).rstrip("/")
        self._secrets = Secrets(key, user, password, url.params.values())
        self._deadline = deadline
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.AsyncClient(
            auth=httpx.BasicAuth(user, password) if user and not key else None,
            headers=headers,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def post(self, body: bytes) -> Reply:
        """Send a request and return the reply; raise Trouble if none comes in time."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._exchange(body)
        except TimeoutError:
            reason = f"no answer within {self._deadline:g} s"
            raise Trouble(reason, is_busy=True, blame=2) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Trouble(self._reason(error), is_unreachable=True) from None
        except httpx.HTTPError as error:
            raise Trouble(self._reason(error), blame=1) from None

    async def _exchange(self, body: bytes) -> Reply:
        async with self._http.stream("POST", self._url, content=body) as response:
            received = bytearray()
            try:
                async for part in response.aiter_raw():
                    received += part
                    if len(received) > MAX_BYTES:
                        break
            except (httpx.ReadError, httpx.RemoteProtocolError):
                if not received:
                    raise
            headers = response.headers
            body = _unzipped(bytes(received), headers.get("Content-Encoding", ""))
            wait = _seconds(headers.get("Retry-After", ""))
            body = self._secrets.hidden_in(body)[:MAX_BYTES]
            return Reply(response.status_code, body, wait)

    def _reason(self, error: httpx.HTTPError) -> str:
        text = str(error) or type(error).__name__
        return self._secrets.hidden_in(text.encode()).decode()


def _url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text.strip())
        is_one = url.scheme in ("http", "https") and url.host and (url.port or 0) <= MAX_PORT
    except (httpx.InvalidURL, ValueError):
        is_one = False
    if not is_one:
        raise CheckpointError("OPENAI_BASE_URL must be a URL such as http://localhost:8000/v1")
    return url


def _unzipped(body: bytes, encoding: str) -> bytes:
    """Return a body that a server has compressed although it was asked not to."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    try:
        return zlib.decompressobj(GZIP_OR_ZLIB).decompress(body, MAX_BYTES)
    except zlib.error:
        return body


def _seconds(retry_after: str) -> float | None:
    """Return the seconds from now that a header Retry-After asks for, a number or a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, LookupError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)
