"""Which hosts HTTP may reach: not those inside, unless the job names them."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.storage.access import (
    NO_EXCEPTIONS,
    AccessRules,
    host_of,
    rules_of,
    set_access_rules,
)
from captioner.schemas.caption_table import Status

INSIDE = [  # all the ways in which a list may name a host of this machine or its network
    *("127.0.0.1", "localhost", "0x7f000001", "0.0.0.0"),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]"),
    *("[fe80::1]", "[fd00::1]", "[2002:7f00:1::]", "LOCALHOST"),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "[fd00:ec2::254]"),
    *("100.64.0.1", "198.18.0.1", "192.0.0.192", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
]


@dataclass
class Server:
    """A server of one image, and of redirects to where `to` says."""

    url: str
    to: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.headers.append(dict(self.headers))
            away = self.path == "/away"
            self.send_response(302 if away else 200)
            if away:
                self.send_header("Location", found.to)
            self.send_header("Content-Length", "0" if away else "5")
            self.end_headers()
            self.wfile.write(b"" if away else b"bytes")

        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        found = Server(f"http://127.0.0.1:{running.server_port}")
        yield found
        running.shutdown()
    set_access_rules(NO_EXCEPTIONS)


def why_refused(url: str) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(url, 100)
    assert caught.value.status == Status.REFUSED
    return str(caught.value)


@pytest.mark.parametrize("host", INSIDE)
def test_a_host_inside_is_refused_however_it_is_written(host: str) -> None:
    assert "--allow-host" in why_refused(f"http://{host}:9/latest/meta-data")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0177.0.0.1", "127.0.0.1."])
def test_an_address_that_is_not_written_as_usual_is_not_asked(host: str) -> None:
    with pytest.raises(FetchError, match="not a canonical IPv4 address"):
        fetch(f"http://{host}:9/latest/meta-data", 100)


def test_a_host_inside_is_asked_if_the_job_names_it(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for allowed in ("127.0.0.1", f"127.0.0.1:{port}"):
        set_access_rules(AccessRules(frozenset([allowed])))
        assert fetch(f"{server.url}/a.jpg", 100) == b"bytes"
        why_refused(f"http://localhost:{port}/a.jpg")
    set_access_rules(AccessRules(frozenset(["127.0.0.1:1"])))
    why_refused(f"{server.url}/a.jpg")
    set_access_rules(AccessRules(allow_private=True))
    assert fetch(f"http://localhost:{port}/a.jpg", 100) == b"bytes"


@pytest.mark.parametrize("host", ["localhost", "[::1]", "169.254.169.254"])
def test_a_redirect_leads_nowhere_else_inside(server: Server, host: str) -> None:
    set_access_rules(AccessRules(frozenset(["127.0.0.1"])))
    server.to = f"http://{host}:{server.url.rpartition(':')[2]}/a.jpg"
    why_refused(f"{server.url}/away")
    server.to = f"{server.url}/a.jpg"
    assert fetch(f"{server.url}/away", 100) == b"bytes"


def test_headers_go_to_the_hosts_they_are_for_also_after_a_redirect(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    options = {f"http://127.0.0.1:{port}": {"headers": {"X-Key": "secret"}}}
    set_access_rules(rules_of([], ["localhost"], True, options))
    server.to = f"http://localhost:{port}/a.jpg"
    fetch(f"{server.url}/away", 100)
    assert [request.get("X-Key") for request in server.headers] == ["secret", None]


def test_headers_for_all_need_to_know_for_whom() -> None:
    options = {"https": {"headers": {"Authorization": "Basic dTpw"}}}
    with pytest.raises(UsageError, match="would be sent to every host of the list"):
        JobConfig("list.csv", "out", storage_options=options)
    rules = JobConfig("https://h/list.csv", "out", storage_options=options).access_rules
    assert rules.headers_of("h", 443) == {"Authorization": "Basic dTpw"}
    assert rules.headers_of("other", 443) == {}
    rules = JobConfig("l.csv", "out", allow_host=["h:81"], storage_options=options).access_rules
    assert rules.headers_of("h", 81) and not rules.headers_of("h", 80)


def test_the_host_of_a_url_may_be_that_of_its_container() -> None:
    assert host_of("zip://a.jpg::https://Host:8/x.zip") == "host:8"
    assert host_of("s3://bucket/a.jpg") is None
    assert host_of("/a/b.jpg") is None
