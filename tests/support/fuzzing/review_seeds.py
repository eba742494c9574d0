"""A small table to review, and steps to begin with."""

import json
from pathlib import Path

from captioner.jobs.table.layout import OutFolder
from captioner.schemas.caption_table import Status
from tests.support.photographs import photograph
from tests.support.rows import row, write_rows

FORMER = {"caption": "A man on a hill.", "confidence": 0.4, "captioner": "old@1"}
CAPTIONS = ("A dog runs.", "A cat's tail.", "naïve café 🐕", "<b>", 'A sign "NOT".', "x" * 200)


def table(folder: Path) -> OutFolder:
    """Write a table of six images with captions and one without; the first image exists."""
    (folder / "0.jpg").write_bytes(photograph(0))
    others = [{"caption": "A red car.", "log_prob": -5.0}, {"caption": None, "log_prob": None}]
    rows = [
        row(
            f"{folder}/{n}.jpg" if n < 4 else f"tar://{n}.jpg::{folder}/a.tar",
            caption=caption,
            confidence=n / 6 if n else None,
            needs_review=n % 2 == 0,
            token_log_probs=[-0.1, -3.0, -0.2, -0.3] if n == 0 else None,
            alternatives=others if n % 2 else None,
            width=640 if n else None,
        )
        for n, caption in enumerate(CAPTIONS)
    ]
    failed = row(f"{folder}/9.jpg", status=Status.NOT_FOUND, caption=None, confidence=None)
    return write_rows(folder / "out", [*rows, failed], labels={"label": [*"abcdef", None]})


def _post(path: str, headers: str = "", **values: object) -> bytes:
    return f"POST api/{path}\n{headers}\n{json.dumps(values)}".encode()


def _decision(item: int, decision: str, text: str = "", window: str = "w") -> bytes:
    return _post("decisions", window=window, item=f"{{{item}}}", decision=decision, text=text)


def _queue(**filters: object) -> bytes:
    return _post("queue", window="w", filters=filters)


_UNDO = _post("undo", window="w")
_SKIP = _post("skip", window="w", item="{1}")
_SHEET = "image_uri,version,caption,decision,text\n{u0},{v0},A dog runs.,%s,%s\n"
REQUESTS = (
    b"GET ",
    b"HEAD ",
    b"GET api/queue?window=w",
    b"GET api/queue?window=%F0%9F%90%95&window=2",
    b"GET pictures/{0}",
    b"GET pictures/{5}",
    b"GET assets/app.js\nAccept-Encoding: gzip",
    b"GET assets/app.js\nRange: bytes=0-9",
    b'GET assets/app.js\nIf-None-Match: "x"\nIf-Modified-Since: Thu, 26 Nov 2026 00:00:00 GMT',
    b"GET shared/base.css",
    b"GET assets/..%2fapp.js",
    b"GET /{t}/../x",
    b"GET /wrong/",
    b"OPTIONS api/queue",
    b"GET api/queue\nHost: example.com",
    b"GET api/queue\nHost: [::1",
    b"GET api/queue\nOrigin: null",
    b"POST api/undo\nContent-Type: application/x-www-form-urlencoded\n\na=1&b=%ff",
    b"POST api/undo\nContent-Type: multipart/form-data; boundary=x\n\n--x\r\n\r\n\r\n--x--\r\n",
    b"POST api/undo\nContent-Encoding: gzip\nExpect: 100-continue\nCookie: a=b\n\n{}",
)
STEPS = (
    *(_decision(0, word) for word in ("accepted", "rejected", "decorative")),
    _decision(1, "edited", "Eine Katze mit Schwanz."),
    _decision(2, "edited", "\u202ex \ud83d\u200b y\u0301\n"),
    b"\n--\n".join([_decision(0, "accepted"), _UNDO, _UNDO]),
    b"\n--\n".join([_decision(3, "edited", "y"), _decision(3, "rejected"), _UNDO, _SKIP, _UNDO]),
    b"\n--\n".join([_SKIP, _queue(status="undecided"), _decision(4, "accepted", window="v")]),
    _queue(status="decided", low=0.1, high=0.5, folder="out", text="dog"),
    _queue(folder="[(*", text="\\%_"),
    _queue(low=1e-300, high=0.99999999999),
    b'POST api/queue\n\n{"filters": {"low": NaN}, "window": "w"}',
    b'POST api/queue\n\n{"filters": {"low": 1e999, "high": true}, "window": 3}',
    b"POST api/decisions\n\n" + b"[" * 2000,
)
WORDS = (
    b"WHERE confidence >= 0.7 AND status = 'ok' AND (image_uri LIKE '%1%' OR format IN ('PNG'))",
    b"WHERE needs_review OR former IS NOT NULL AND NOT label BETWEEN 'a' AND 'c'",
    b"WHERE width > 99999999999999999999 OR annotated_at < '2026-01-01' OR \"label\" <> ''",
    b"WHERE token_log_probs IS NULL AND needs_review IS NOT TRUE",
    b'SEARCH "red car" sno* NOT cafe\nconfidence < 0.5',
    b"SEARCH dog\nimage_uri LIKE '\\_%' AND width IS NULL",
    b"IMPORT " + (_SHEET % ("accepted", "")).encode(),
    b"IMPORT "
    + (_SHEET % ("", "A big dog.")).encode()
    + b'{u4},{v4},"A sign ""NOT"".",accepted,\n',
    b"IMPORT " + (_SHEET % ("", "Ein Hund für Käthe.")).encode("cp1252"),
    b"IMPORT " + (_SHEET % ("rejected", "")).encode("utf-16"),
    'IMPORT sep=;\r\nimage_uri;version;caption;decision;text\r\n"{u2}";{v2};"naïve café 🐕";'
    '"=decorative";\r\n'.encode(),
)
SEEDS = (*REQUESTS, *STEPS, *WORDS)
