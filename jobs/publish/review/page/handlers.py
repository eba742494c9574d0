"""The requests of the page: JSON, pictures and the page itself."""

import json
from contextlib import suppress
from dataclasses import dataclass
from http.client import responses
from pathlib import Path
from typing import Any, ClassVar

from tornado.log import app_log
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from captioner.jobs.errors import FetchError, JobError
from captioner.jobs.publish.review.item import Item
from captioner.jobs.publish.review.page.desk import Desk
from captioner.jobs.publish.review.page.guard import HEADERS, problem
from captioner.jobs.publish.review.page.session import Session
from captioner.jobs.publish.review.queue import STATUSES, Filters
from captioner.jobs.publish.review.texts import Refused

ASSETS = Path(__file__).parent / "assets"
SHARED_ASSETS = Path(__file__).parents[2] / "assets"
MOST_BYTES = 64 * 1024  # of a request that is answered


@dataclass(frozen=True)
class Site:
    """The session that all handlers share, and who may talk to it: `host` is the server's."""

    session: Session
    token: str
    host: str


class Guarded(RequestHandler):
    """A handler that answers only this page, and errors as JSON."""

    site: Site

    def initialize(self, site: Site) -> None:
        self.site = site

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        token = self.path_kwargs.pop("token", "")
        if reason := problem(self.request, token, self.site.token, self.site.host):
            raise HTTPError(403, reason)
        if len(self.request.body) > MOST_BYTES:
            raise HTTPError(413, f"the request has more than {MOST_BYTES:,} bytes")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.finish({"error": _message(error)})

    def log_exception(self, *error: Any) -> None:
        """Log what is a fault of the program, without the address; the page shows the rest."""
        if not isinstance(error[1], HTTPError | JobError | OSError | Refused | FetchError):
            name = f"{self.request.method} of {type(self).__name__}"
            app_log.error("a fault of the page, in %s", name, exc_info=error)


def _message(error: object) -> str:
    match error:
        case Refused() | JobError() | FetchError():
            return str(error)
        case HTTPError(log_message=str() as reason):
            return reason % error.args
        case HTTPError():
            return f"{error.status_code}: {error.reason or responses[error.status_code]}"
        case OSError():
            return f"cannot read or write: {error.strerror or error}"
    return "something went wrong: the terminal of `captioner review` says what"


class Api(Guarded):
    """A handler of JSON about one window of a browser."""

    STATUS: ClassVar[dict[type[Exception], int]] = {Refused: 409, FetchError: 404}

    @property
    def session(self) -> Session:
        return self.site.session

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None,))[0]
        super().send_error(self.STATUS.get(error, status_code), **kwargs)

    def sent(self) -> dict[str, Any]:
        """Return the JSON object of a request."""
        try:
            values = json.loads(self.request.body)
        except (ValueError, RecursionError) as error:
            raise HTTPError(400, "the request is not JSON") from error
        if not isinstance(values, dict):
            raise HTTPError(400, "the request is not an object")
        return values

    def text_of(self, values: dict[str, Any], name: str) -> str:
        value = values.get(name, "")
        if not isinstance(value, str):
            raise HTTPError(400, f"{name} is not a string")
        return value

    def desk(self, values: dict[str, Any]) -> Desk:
        return self.session.desk(self.text_of(values, "window"))

    def item(self, values: dict[str, Any]) -> Item:
        return self.session.item(self.text_of(values, "item"))

    async def answer_with_queue(self, desk: Desk) -> None:
        found = await self.session.window(desk)
        writer = self.session.writer
        self.finish(
            {
                "items": [item.shown() for item in found.items],
                "remaining": found.remaining,
                "total": found.total,
                "saved": self.session.saved,
                "steps": len(desk.steps),
                "filters": vars(desk.filters),
                "reviewer": writer.reviewer,
                "out": str(writer.out.root),
            }
        )


class QueueHandler(Api):
    """The next images, or those that new filters let through."""

    async def get(self) -> None:
        desk = self.session.desk(self.get_query_argument("window", ""))
        await self.answer_with_queue(desk)

    async def post(self) -> None:
        values = self.sent()
        desk = self.desk(values)
        desk.filters = _filters(values.get("filters"))
        desk.skipped.clear()
        await self.answer_with_queue(desk)


class DecisionHandler(Api):
    """A decision about an image."""

    async def post(self) -> None:
        values = self.sent()
        item = self.item(values)
        decision, text = (self.text_of(values, name) for name in ("decision", "text"))
        review = await self.session.decide(self.desk(values), item, decision, text)
        other = self.session.by_others.pop(item.row["image_uri"], None)
        by_other = {"reviewer": other.reviewer, "decision": other.decision} if other else None
        self.finish({"decision": review.decision, "text": review.text, "by_other": by_other})


class SkipHandler(Api):
    """An image that is put off."""

    async def post(self) -> None:
        values = self.sent()
        self.session.skip(self.desk(values), self.item(values))
        self.finish({})


class UndoHandler(Api):
    """The last decision or skip, taken back."""

    async def post(self) -> None:
        step = await self.session.undo(self.desk(self.sent()))
        self.finish({"item": step.item.shown(), "decision": step.review and step.review.decision})


class PictureHandler(Api):
    """The picture of an image that the page shows, or will show next."""

    async def get(self, name: str) -> None:
        item = self.session.item(name)
        picture = await self.session.pictures.prepare(item.row["image_uri"])
        self.set_header("Content-Type", "image/jpeg")
        self.finish(picture)


class PageHandler(Guarded):
    """The page."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((ASSETS / "index.html").read_bytes())


class AssetHandler(Guarded, StaticFileHandler):
    """The style sheets and scripts of the page."""

    def initialize(self, site: Site, path: str) -> None:  # type: ignore[override]
        Guarded.initialize(self, site)
        StaticFileHandler.initialize(self, path)

    def should_return_304(self) -> bool:
        return False


class NothingHere(Guarded):
    """Any other address."""

    def prepare(self) -> None:
        raise HTTPError(404, "there is nothing here")


def _filters(values: object) -> Filters:
    """Return the filters that a page sends; raise HTTPError if they are not valid."""
    with suppress(TypeError, UnicodeEncodeError):  # of another type, or half a surrogate pair
        filters = Filters(**values) if isinstance(values, dict) else Filters()
        (filters.folder + "/" + filters.text).encode()
        if filters.status in STATUSES and 0 <= filters.low <= 1 and 0 <= filters.high <= 1:
            return filters
    raise HTTPError(400, "these are not valid filters")
