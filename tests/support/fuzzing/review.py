"""The review: requests to its server, conditions, searches and spreadsheets.

An input is some steps, with a line `--` between them. A step is a line of a method and a path,
headers, an empty line and a body; or WHERE and a condition, SEARCH, a query and a condition, or
IMPORT and a spreadsheet. `{0}` to `{5}` are the images of the table, for the server; `{u0}`, `{v0}`
and so on are their URIs and versions in a spreadsheet; `{t}` is the token.
"""

import asyncio
import csv
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from http.client import parse_headers
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from captioner.jobs.errors import UsageError
from captioner.jobs.publish.find.index import update_index
from captioner.jobs.publish.find.search import search_words
from captioner.jobs.publish.review.page.server import served
from captioner.jobs.publish.review.page.session import Session
from captioner.jobs.publish.review.queue import Filters, build_queue, scope_of
from captioner.jobs.publish.review.sheet.importing import import_sheet
from captioner.jobs.publish.review.sheet.write import write_sheet
from captioner.jobs.publish.review.texts import MAX_TEXT, clean_text
from captioner.jobs.table.reviews import as_reviews, decisions, in_force, read_reviews
from captioner.schemas.review import Decision
from tests.support.fuzzing.review_seeds import SEEDS, table

IMAGES = 6  # with captions
EACH = 300  # inputs of a table and a server
ANSWER_SECONDS = 20


def seeds() -> Iterator[bytes]:
    yield from SEEDS


@contextmanager
def target(folder: Path) -> Iterator[Callable[[bytes], None]]:
    reviews = _Reviews(folder / "review")
    logging.getLogger().addHandler(reviews.faults)
    try:
        yield reviews
    finally:
        logging.getLogger().removeHandler(reviews.faults)
        reviews.loop.run_until_complete(reviews.stack.aclose())
        reviews.loop.close()


class _Faults(logging.Handler):
    """What the server logs as its own faults."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class _Reviews:
    """A server in an event loop that runs while an input is tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = AsyncExitStack()
        self.faults = _Faults()
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, about: self.faults.found.append(str(about)))
        self.left = 0  # inputs for this table

    def __call__(self, data: bytes) -> None:
        if not self.left:
            self.loop.run_until_complete(self._begin())
        self.left -= 1
        self.loop.run_until_complete(self._try(data))
        found = [*self.faults.found]
        self.faults.found.clear()
        assert not found, found

    async def _begin(self) -> None:
        """Serve the review of a new table."""
        await self.stack.aclose()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.left = EACH
        self.out = table(self.folder)
        update_index(self.out, self.folder / "index", quiet=True)
        self.session = Session(scope_of(self.out, None), "ann")
        self.url = await self.stack.enter_async_context(served(self.session, "127.0.0.1", 0))
        self.before = self._captions()
        first = await self._request(b"POST api/queue\n\n" + b'{"filters": {"status": "all"}}')
        items = json.loads(first)["items"]
        assert len(items) == IMAGES
        self.names = {Path(each["name"]).stem: each["id"] for each in items} | self._in_sheet()
        self.imported = 0

    def _in_sheet(self) -> dict[str, str]:
        """Return the URIs and versions in a spreadsheet, by the placeholders for them."""
        path = self.folder / "written.csv"
        write_sheet(self.session.scope, path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = {
                Path(each["image_uri"].partition("::")[0]).stem: each
                for each in csv.DictReader(file)
            }
        uris = {f"u{name}": each["image_uri"] for name, each in rows.items()}
        return uris | {f"v{name}": each["version"] for name, each in rows.items()}

    async def _try(self, data: bytes) -> None:
        for name, value in self.names.items():
            data = data.replace(b"{%s}" % name.encode(), value.encode())
        saved = self.session.saved
        for step in data.split(b"\n--\n"):
            method, _, rest = step.partition(b" ")
            try:
                await self._step(method, rest, step)
            except UsageError as error:
                assert str(error) and "Traceback" not in str(error)
        if self.session.saved != saved or b"IMPORT" in data:
            self._check_reviews()
        assert self._captions() == self.before
        assert "items" in json.loads(await self._request(b"GET api/queue?window=check"))

    async def _step(self, method: bytes, rest: bytes, step: bytes) -> None:
        words = rest.decode(errors="surrogateescape")
        if method == b"WHERE":
            scope = scope_of(self.out, words)
            build_queue(scope, Filters(status="all"), decisions(self.out))
        elif method == b"SEARCH":
            query, _, where = words.partition("\n")
            search_words(self.folder / "index", query, where, 10)
        elif method == b"IMPORT":
            (self.folder / "sheet.csv").write_bytes(rest)
            self.imported += import_sheet(self.out, self.folder / "sheet.csv", "bob").saved
        else:
            await self._request(step)

    async def _request(self, step: bytes) -> bytes:
        """Send a request; return the body of its answer, which is no fault of the server."""
        return await asyncio.wait_for(self._sent(step), ANSWER_SECONDS)

    async def _sent(self, step: bytes) -> bytes:
        parts = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(_raw(step, parts.netloc.encode(), parts.path.strip("/").encode()))
            return await _answer(reader, is_head=step.startswith(b"HEAD"))
        except ConnectionError:
            return b""  # closed early, as for a request that is none
        finally:
            writer.close()

    def _captions(self) -> Sequence[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("out/captions/*"))]

    def _check_reviews(self) -> None:
        reviews = read_reviews(self.out)
        undone = sum(each.decision == Decision.UNDONE for each in as_reviews(reviews))
        assert len(reviews) - 2 * undone == self.session.saved + self.imported
        for review in as_reviews(in_force(reviews).reviews):
            text = review.text or ""
            assert text == review.caption or (text == clean_text(text) and len(text) <= MAX_TEXT)


def _raw(step: bytes, host: bytes, token: bytes) -> bytes:
    """Return a request as it is sent; the headers that it lacks are those of the page."""
    head, _, body = step.partition(b"\n\n")
    first, *headers = head.replace(b"{t}", token).split(b"\n")
    method, _, path = first.partition(b" ")
    path = path if path.startswith(b"/") else b"/%s/%s" % (token, path)
    named = {header.partition(b":")[0].lower() for header in headers}
    usual = {b"Host": host, b"Origin": b"http://" + host, b"Connection": b"close"}
    headers += [b"%s: %s" % each for each in usual.items() if each[0].lower() not in named]
    headers.append(b"Content-Length: %d" % len(body))
    return b"%s %s HTTP/1.1\r\n%s\r\n\r\n%s" % (method, path, b"\r\n".join(headers), body)


async def _answer(reader: asyncio.StreamReader, is_head: bool) -> bytes:
    first = await reader.readline()
    if not first:
        return b""
    status = int(first.split()[1])
    try:
        headers = parse_headers(BytesIO(await reader.readuntil(b"\r\n\r\n")))
        length = int(headers["Content-Length"] or 0)
        body = b"" if is_head else await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        body = error.partial
    assert 100 <= status < 500, body
    return body
