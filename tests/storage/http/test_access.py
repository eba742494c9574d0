"""Which hosts HTTP may reach: not those inside, unless the job names them."""

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fsspec.config import conf

from captioner.jobs.config.job import JobConfig
from captioner.jobs.errors import FetchError, UsageError
from captioner.jobs.fetching.fetch import fetch
from captioner.jobs.pipeline.settings import worker_settings
from captioner.jobs.sources.open_source import open_source
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.http.access import (
    NO_EXCEPTIONS,
    AccessRules,
    access_rules,
    allow,
    bucket_of,
    rules_of,
    set_access_rules,
)
from captioner.jobs.storage.http.addresses import is_public, origin_of, place_of
from captioner.schemas.caption_table import Status

INSIDE = [  # all the ways in which a list may name a host of this machine or its network
    *("127.0.0.1", "localhost", "0x7f000001", "0.0.0.0"),
    *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]"),
    *("[fe80::1]", "[fd00::1]", "[2002:7f00:1::]", "LOCALHOST"),
    *("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "[fd00:ec2::254]"),
    *("100.64.0.1", "198.18.0.1", "192.0.0.192", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("[64:ff9b:1::7f00:1]", "[fec0::1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]"),
    *("[2001:0:0:0:0:0:80ff:fffe]", "127。0。0。1"),
]
ODD = ["127.1", "127.0.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "0", "127.000.000.001"]


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


@pytest.mark.parametrize("host", ODD)
def test_an_address_that_is_not_written_as_usual_is_not_asked(host: str) -> None:
    assert "not how an address is written" in why_refused(f"http://{host}:9/latest/meta-data")
    for rules in (AccessRules(), AccessRules(allow_private=True)):  # whatever aiohttp refuses
        with pytest.raises(FetchError, match="not how an address is written"):
            rules.check_host(host, 9)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"],
)
def test_an_address_outside_is_asked(address: str) -> None:
    assert is_public(address)
    AccessRules().check_host(address, 80)


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


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The addresses of hosts, which a test may move."""
    found = {
        "nas.intern": "10.0.0.5",
        "example.org": "1.1.1.1",
        "xn--mnchen-3ya.intern": "10.0.0.6",
    }

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host not in found:
            raise OSError("no such host")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return found


def settled(*urls: str, allow_host: tuple[str, ...] = ()) -> AccessRules:
    return rules_of(urls, allow_host, False, {}).settled()


def test_the_host_of_source_may_be_private_only_if_it_is_when_the_job_begins(
    addresses: dict[str, str],
) -> None:
    rules = settled("https://example.org/list.csv", "http://NAS.intern.:8080/a", "http://no.where/")
    assert rules.hosts == {"nas.intern:8080"}
    assert rules.allows("nas.intern", 8080) and rules.settled() == rules
    for host, port in (("nas.intern", 6379), ("example.org", 443), ("no.where", 80)):
        with pytest.raises(FetchError, match=f"--allow-host {host}:{port}"):
            rules.check_address(host, port, "169.254.169.254")
    job = JobConfig(["http://nas.intern:8080/list.csv", "https://example.org/"], "out")
    configure({}, job.access_rules)
    addresses["example.org"] = "10.0.0.5"
    assert worker_settings(job).access_rules == rules  # as they were when the job began
    set_access_rules(rules)
    allow(["https://example.org/a.jpg", "/b.jpg"])
    assert access_rules().hosts == {"nas.intern:8080", "example.org:443"}
    set_access_rules(NO_EXCEPTIONS)


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("nas.intern.", "nas.intern"),
        ("nas.intern", "nas.intern."),
        ("münchen.intern", "xn--mnchen-3ya.intern"),
        ("MÜNCHEN.intern.", "xn--mnchen-3ya.intern"),
        ("xn--mnchen-3ya.intern", "xn--mnchen-3ya.intern"),
        ("[FD00:0:0::1]", "fd00::1"),
        ("10.0.0.5", "10.0.0.5"),
    ],
)
@pytest.mark.usefixtures("addresses")
def test_a_host_is_the_same_however_it_is_named(named: str, asked: str) -> None:
    set_access_rules(rules_of([], [named, f"{named}:81"], False, {}))
    access_rules().check_address(asked, 80, "10.0.0.5")
    rules = rules_of([], [f"{named}:81"], False, {})
    assert rules.allows(asked, 81) and not rules.allows(asked, 80)
    set_access_rules(NO_EXCEPTIONS)


def test_headers_go_to_the_hosts_they_are_for_also_after_a_redirect(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    options = {f"http://127.0.0.1:{port}": {"headers": {"X-Key": "secret"}}}
    set_access_rules(rules_of([], ["localhost"], True, options))
    server.to = f"http://localhost:{port}/a.jpg"
    fetch(f"{server.url}/away", 100)
    assert [request.get("X-Key") for request in server.headers] == ["secret", None]


def test_headers_for_https_are_never_sent_in_the_clear(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    headers = {"headers": {"X-Key": "secret"}}
    for key in ("https", "https://127.0.0.1", f"https://127.0.0.1:{port}", "http://127.0.0.1"):
        set_access_rules(rules_of([], ["127.0.0.1"], True, {key: headers}))
        fetch(f"{server.url}/a.jpg", 100)
    assert [request.get("X-Key") for request in server.headers] == [None] * 4
    rules = rules_of([], [], True, {"https://example.org": headers})
    assert rules.headers_of("https", "example.org", 443) == {"X-Key": "secret"}
    assert not rules.headers_of("https", "example.org", 8443)
    assert not rules.headers_of("http", "example.org", 443)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("headers", {"https": {"headers": {"X-Key": "secret"}}}),
        ("headers", {"http": {"client_kwargs": {"headers": {"X-Key": "secret"}}}}),
        ("cookies", {"http": {"client_kwargs": {"cookies": {"a": "secret"}}}}),
    ],
)
def test_headers_that_fsspec_itself_has_are_sent_to_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, table: dict[str, Any]
) -> None:
    set_access_rules(AccessRules(allow_private=True))
    for protocol, options in table.items():
        monkeypatch.setitem(conf, protocol, options)
    for call in (open_source, lambda url: fetch(url, 100)):
        with pytest.raises((FetchError, UsageError), match=f"{name} in fsspec's own") as caught:
            call(f"{server.url}/a.jpg")
        assert "secret" not in str(caught.value)
    assert not server.headers


def test_headers_for_all_need_to_know_for_whom() -> None:
    options = {"https": {"headers": {"Authorization": "Basic dTpw"}}}
    with pytest.raises(UsageError, match="would be sent to every host of the list"):
        JobConfig("list.csv", "out", storage_options=options)
    rules = JobConfig("https://h/list.csv", "out", storage_options=options).access_rules
    assert rules.headers_of("https", "h", 443) == {"Authorization": "Basic dTpw"}
    assert rules.headers_of("https", "other", 443) == {}
    rules = JobConfig("l.csv", "out", allow_host=["h:81"], storage_options=options).access_rules
    assert rules.headers_of("https", "h", 81) and not rules.headers_of("https", "h", 80)


@pytest.mark.parametrize("name", ["cookies", "params"])
@pytest.mark.parametrize("key", ["https", "https://example.org"])
def test_what_fsspec_would_send_to_all_hosts_is_refused(name: str, key: str) -> None:
    table: dict[str, Any] = {name: {"session": "secret"}}
    for options in ({key: table}, {key: {"client_kwargs": table}}):
        with pytest.raises(UsageError, match=f"{name} in storage_options") as caught:
            JobConfig("https://h/list.csv", "out", storage_options=options)
        assert "secret" not in str(caught.value)


def test_a_table_for_no_host_is_an_error() -> None:
    for key in ("https://", "https://h:port", "http://[::1/"):
        with pytest.raises(UsageError, match="no URL of a host"):
            rules_of([], [], False, {key: {"headers": {"X": "y"}}})


def test_the_place_of_a_url_may_be_that_of_its_container() -> None:
    assert origin_of("zip://a.jpg::https://Host:8/x.zip") == "https://host:8"
    assert origin_of("HTTP://me@Host/a.jpg") == "http://host:80"
    assert (
        origin_of("s3://bucket/a.jpg") is origin_of("/a/b.jpg") is origin_of("http://h:x/") is None
    )
    assert bucket_of("zip://a.jpg::s3a://bucket/x.zip") == "s3://bucket"
    assert bucket_of("https://host/a.jpg") is bucket_of("/a/b.jpg") is None
    assert place_of("[::0001]", 80) == "[::1]:80"
