"""A server with an OpenAI-compatible chat API, as a process: it captions images, or fails as told.

    python -m tests.support.chat_server [--port N] [--latency SECONDS] [--answers FILE] [--log FILE]

Prints its port. `POST /v1/chat/completions` answers about the image of a request: with the text
that the JSON object in FILE has for the SHA-256 of the image's bytes, or with an invented one. Each
request is a JSON line in the log. `GET /requests` returns the lines of the log as a list.
`POST /behave` takes a JSON object with any of

    schedule   faults of the next requests, one each, in order of arrival
    always     the fault of all requests after those
    latency    seconds before each answer

A fault is a name in FAULTS with its arguments, such as "status 503", or one of these names as the
model of a request. "ok" is none.
"""

import argparse
import base64
import gzip
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USAGE = {"prompt_tokens": 400, "completion_tokens": 12}
ATTACK = "<script>document.title = 'attacked'</script><img src=x onerror=alert(1)>"
HTML = "<!doctype html><html><body><h1>It works!</h1></body></html>"
Json = dict[str, Any]


class ChatServer(ThreadingHTTPServer):
    """The server, with what it should do and what it was asked."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, answers: Mapping[str, str], log: Path | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers, self.log = answers, log
        self.schedule: deque[str] = deque()
        self.always, self.latency = "ok", 0.0
        self.requests: list[Json] = []
        self.in_flight = 0
        self.lock = threading.Lock()

    def behave(self, schedule: list[str] | None = None, **values: Any) -> None:
        """Set the faults and the latency from now on."""
        with self.lock:
            self.schedule = deque(schedule or ())
            self.always = values.get("always", self.always)
            self.latency = values.get("latency", self.latency)

    def note(self, body: Json, key: str | None) -> tuple[str, Json]:
        """Record a request; return its fault, and the record."""
        model = str(body.get("model")).split()
        with self.lock:
            self.in_flight += 1
            fault = self.schedule.popleft() if self.schedule else self.always
            if fault == "ok" and model and model[0] in FAULTS:
                fault = " ".join(model)
            record = {
                "number": len(self.requests),
                "at": time.time(),
                "fault": fault,
                "in_flight": self.in_flight,
                "authorization": key,
                "image": hashlib.sha256(image_of(body)).hexdigest(),
                "body": body,
            }
            self.requests.append(record)
            if self.log:
                with self.log.open("a") as file:
                    file.write(json.dumps(record) + "\n")
        return fault, record

    def text(self, record: Json) -> str:
        """Return the answer about an image."""
        digest = record["image"]
        invented = f"A dog with the number {int(digest[:6], 16)} runs on the grass."
        return self.answers.get(digest, invented)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_GET(self) -> None:
        self.send(200, json.dumps(self.server.requests))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/behave":
            self.server.behave(**body)
            self.send(200, "{}")
        elif not self.path.endswith("/chat/completions"):
            self.send(404, '{"error": {"message": "no such page"}}')
        else:
            self._answer(body)

    def _answer(self, body: Json) -> None:
        fault, record = self.server.note(body, self.headers["Authorization"])
        try:
            time.sleep(self.server.latency)
            name, *arguments = fault.split()
            FAULTS[name](self, record, *arguments)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def send(self, status: int, text: str, **headers: str) -> None:
        """Send a whole response."""
        data = text.encode()
        self.head(status, len(data), **headers)
        self.wfile.write(data)

    def head(self, status: int, length: int, **headers: str) -> None:
        """Send the head of a response."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


def image_of(body: Json) -> bytes:
    """Return the bytes of the image of a request."""
    parts = body["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    return base64.b64decode(url.partition(",")[2])


def completion(record: Json, text: str | None, **message: Any) -> Json:
    """Return the answer with a text; `message` and `finish_reason` win over what is usual."""
    choice: Json = {"index": 0, "finish_reason": message.pop("finish_reason", "stop")}
    choice["message"] = {"role": "assistant", "content": text, **message}
    if record["body"].get("logprobs") and text:
        words = text.split(" ")
        tokens = [{"token": word, "logprob": -0.1 * (n + 1)} for n, word in enumerate(words)]
        choice["logprobs"] = {"content": tokens}
    return {"object": "chat.completion", "choices": [choice], "usage": USAGE}


def _ok(handler: Handler, record: Json) -> None:
    handler.send(200, json.dumps(completion(record, handler.server.text(record))))


def _says(handler: Handler, record: Json, *words: str) -> None:
    handler.send(200, json.dumps(completion(record, " ".join(words))))


def _attack(handler: Handler, record: Json) -> None:
    _says(handler, record, ATTACK)


def _status(handler: Handler, record: Json, status: str, *words: str) -> None:
    message = " ".join(words) or f"this is status {status}"
    handler.send(int(status), json.dumps({"error": {"message": message}}))


def _inside(handler: Handler, record: Json, status: str) -> None:
    """Send a status in the body of a reply with another one."""
    handler.send(200, json.dumps({"error": {"message": "bad", "code": int(status)}}))


def _retry_after(handler: Handler, record: Json, seconds: str, status: str = "429") -> None:
    handler.send(int(status), '{"error": {"message": "slow down"}}', Retry_After=seconds)


def _retry_at(handler: Handler, record: Json, seconds: str) -> None:
    date = formatdate(time.time() + float(seconds), usegmt=True)
    handler.send(429, '{"error": {"message": "slow down"}}', Retry_After=date)


def _unsupported(handler: Handler, record: Json, *names: str) -> None:
    """Refuse requests that have one of the parameters."""
    used = [name for name in names if name in record["body"]]
    if not used:
        return _ok(handler, record)
    error = {"message": f"Unsupported parameter: '{used[0]}'", "param": used[0]}
    return handler.send(400, json.dumps({"error": error}))


def _reset(handler: Handler, record: Json) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(handler.connection.detach())


def _slow(handler: Handler, record: Json, seconds: str = "0.1") -> None:
    """Send an answer byte by byte."""
    data = json.dumps(completion(record, handler.server.text(record))).encode()
    handler.head(200, len(data))
    for byte in data:
        handler.wfile.write(bytes([byte]))
        time.sleep(float(seconds))


def _slow_head(handler: Handler, record: Json, seconds: str = "0.1") -> None:
    """Send headers that never end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        handler.wfile.write(f"X-{number}: 1\r\n".encode())
        time.sleep(float(seconds))


def _half(handler: Handler, record: Json) -> None:
    """Send half an answer, and close."""
    data = json.dumps(completion(record, handler.server.text(record))).encode()
    handler.head(200, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def _half_json(handler: Handler, record: Json) -> None:
    """Send half an answer as if it were the whole."""
    text = json.dumps(completion(record, handler.server.text(record)))
    handler.send(200, text[: len(text) // 2])


def _choices(handler: Handler, record: Json, count: str) -> None:
    answer = completion(record, handler.server.text(record))
    handler.send(200, json.dumps({**answer, "choices": answer["choices"] * int(count)}))


def _gzip(handler: Handler, record: Json) -> None:
    """Send a compressed answer, whatever the request accepts."""
    data = gzip.compress(json.dumps(completion(record, handler.server.text(record))).encode())
    handler.head(200, len(data), Content_Encoding="gzip")
    handler.wfile.write(data)


def _refusal(handler: Handler, record: Json) -> None:
    answer = completion(record, None, refusal="I cannot help with that.")
    handler.send(200, json.dumps(answer))


def _finish(handler: Handler, record: Json, reason: str) -> None:
    text = handler.server.text(record)[:20]
    handler.send(200, json.dumps(completion(record, text, finish_reason=reason)))


def _huge(handler: Handler, record: Json, megabytes: str = "64") -> None:
    """Send an answer that is much too large."""
    size = int(megabytes) << 20
    handler.head(200, size)
    for _ in range(size >> 16):
        handler.wfile.write(b"x" * 65536)


FAULTS: dict[str, Callable[..., None]] = {
    "ok": _ok,
    "says": _says,
    "attack": _attack,
    "status": _status,
    "inside": _inside,
    "retry-after": _retry_after,
    "retry-at": _retry_at,
    "unsupported": _unsupported,
    "unauthorized": lambda handler, record: _status(handler, record, "401", "wrong key"),
    "reset": _reset,
    "slow": _slow,
    "slow-head": _slow_head,
    "half": _half,
    "half-json": _half_json,
    "nonsense": lambda handler, record: handler.send(200, '{"nonsense": [1, 2]}'),
    "html": lambda handler, record: handler.send(200, HTML),
    "choices": _choices,
    "null": lambda handler, record: handler.send(200, json.dumps(completion(record, None))),
    "gzip": _gzip,
    "refusal": _refusal,
    "finish": _finish,
    "huge": _huge,
}


def main() -> None:
    """Serve until the process is killed, or its standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    answers = json.loads(options.answers.read_text()) if options.answers else {}
    with ChatServer(options.port, answers, options.log) as server:
        server.behave(latency=options.latency)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
