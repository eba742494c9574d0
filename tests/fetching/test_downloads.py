"""Images of hosts that limit, stall, fail or go down, on a real server."""

import queue
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from captioner.jobs.errors import FetchError, HostDown
from captioner.jobs.fetching import downloads as downloads_module
from captioner.jobs.fetching import held_bytes
from captioner.jobs.fetching.downloads import Downloads
from captioner.jobs.storage import filesystems
from captioner.jobs.storage.attempts import hosts, pace, retry
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.storage.http import connections
from captioner.schemas.caption_table import Status
from tests.support.photographs import photograph
from tests.support.unreliable import UnreliableServer, unreliable_server

Found = bytes | FetchError
LATE = 60.0  # seconds, after which a test has failed


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, local_servers: None) -> Iterator[None]:
    """Make all limits short, and forget all hosts."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.05, 0.1))
    monkeypatch.setattr(retry, "FETCH_SECONDS", 1.0)
    monkeypatch.setattr(retry, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(hosts, "LONGEST_BACK_OFF", 0.1)
    monkeypatch.setattr(filesystems, "HTTP_READ_SECONDS", 0.4)
    monkeypatch.setattr(connections, "QUIET_SECONDS", 0.0)
    configure({})
    yield
    configure({})


def fetched(uris: Sequence[str], max_bytes: int = 10**6) -> list[Found]:
    """Return what each URL gave."""
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    downloads = Downloads(dict(enumerate(uris)), max_bytes)
    downloads.start(arrived.put, len(uris))
    found: dict[int, Found] = {}
    for _ in uris:
        number = arrived.get(timeout=LATE)
        try:
            found[number] = downloads.take(number)
        except FetchError as error:
            found[number] = error
        downloads.used()
    downloads.close()
    return [found[number] for number in range(len(uris))]


def photographs(server: UnreliableServer, count: int, first: int = 0) -> list[str]:
    return [f"{server.url}/ok/{number}.jpg" for number in range(first, first + count)]


def down(found: Sequence[Found]) -> set[str]:
    """Return why hosts are down; every image must be without an answer for that."""
    assert found and all(isinstance(each, HostDown) for each in found)
    return {str(each) for each in found}


def test_each_image_is_fetched_by_one_request(unreliable: UnreliableServer) -> None:
    found = fetched(photographs(unreliable, 60))
    assert found == [photograph(number) for number in range(60)]
    assert set(unreliable.requests.values()) == {1}
    assert unreliable.peak <= hosts.MOST_IN_FLIGHT


@pytest.mark.parametrize("date", [False, True])
def test_a_host_that_limits_requests_gets_no_more_before_the_time_it_names(
    unreliable: UnreliableServer, date: bool
) -> None:
    unreliable.limit, unreliable.window, unreliable.date = 4, 1.0, date
    found = fetched(photographs(unreliable, 12))
    assert found == [photograph(number) for number in range(12)]
    assert unreliable.refused <= 2 * hosts.FIRST_IN_FLIGHT * 2


def test_a_host_that_asks_to_wait_for_an_hour_is_down(
    unreliable: UnreliableServer,
) -> None:
    unreliable.limit, unreliable.window = 0, 3600.0
    assert down(fetched(photographs(unreliable, 20))) == {
        "the server answered 429 Too Many Requests"
    }
    assert unreliable.requests.total() <= hosts.FIRST_IN_FLIGHT


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("status/503", "the server answered 503 Service Unavailable"),
        ("status/500", "the server answered 500 Internal Server Error"),
        ("reset", "the connection was closed before the answer was complete"),
        ("mute", "no answer within"),
    ],
)
def test_a_host_that_fails_with_everything_is_down_and_no_image_is_at_fault(
    unreliable: UnreliableServer, how: str, reason: str
) -> None:
    unreliable.down = how
    said = down(fetched(photographs(unreliable, 40)))
    assert all(each.startswith((reason, "no answer within")) for each in said)  # on a busy machine
    asked = unreliable.requests.total()
    assert {str(each) for each in fetched(photographs(unreliable, 40, 40)) if down([each])}
    assert unreliable.requests.total() == asked  # it is not asked again at once


def test_a_host_that_refuses_connections_is_down() -> None:
    with unreliable_server() as server:
        uris = photographs(server, 5)
    assert down(fetched(uris)) == {"the connection was refused"}


def test_a_host_without_a_name_is_not_found() -> None:
    (found,) = fetched(["http://no-such-host.invalid/a.jpg"])
    assert isinstance(found, FetchError) and not isinstance(found, HostDown)
    assert (found.status, str(found)) == (Status.NOT_FOUND, "no host has this name")


@pytest.mark.parametrize("url", ["http:///{}.jpg", "http://host:port/{}.jpg", "http://[::1/{}.jpg"])
def test_urls_that_nobody_could_answer_are_failures_of_their_own(url: str) -> None:
    found = fetched([url.format(number) for number in range(2 * retry.BROKEN_IMAGES)])
    assert {type(each) for each in found} == {FetchError}


def test_images_that_fail_beside_others_are_at_fault_themselves(
    unreliable: UnreliableServer,
) -> None:
    kinds = {
        "mute": (Status.TIMEOUT, "no answer within"),
        "drip": (Status.TIMEOUT, "the answer came too slowly"),
        "cut": (Status.FETCH_FAILED, "the connection was closed before the answer was complete"),
        "status/500": (Status.FETCH_FAILED, "the server answered 500 Internal Server Error"),
        "status/503": (Status.FETCH_FAILED, "the server answered 503 Service Unavailable"),
        "status/404": (Status.NOT_FOUND, "the server answered 404 Not Found"),
        "status/403": (Status.DENIED, "the server answered 403 Forbidden"),
    }
    bad = [f"{unreliable.url}/{kind}/1.jpg" for kind in kinds]
    found = fetched([*photographs(unreliable, 20), *bad])
    assert found[:20] == [photograph(number) for number in range(20)]
    assert unreliable.requests["/cut/1.jpg"] == len(retry.RETRY_DELAYS) + 1
    for failure, (status, text) in zip(found[20:], kinds.values(), strict=True):
        assert type(failure) is FetchError
        assert failure.status is status and str(failure).startswith(text)


def test_images_that_take_longer_than_all_attempts_arrive_while_bytes_come(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SLOWEST", 100)
    uris = [f"{unreliable.url}/slow/{number}.jpg" for number in range(4)]
    assert fetched(uris) == [photograph(number) for number in range(4)]


def test_an_image_that_drips_is_given_up_after_one_attempt_and_so_is_a_host_that_does_so(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SLOWEST", 100)
    monkeypatch.setattr(pace, "WHOLE_SECONDS", 1.0)
    slow = f"{unreliable.url}/slow/0.jpg"
    *good, bad = fetched([*photographs(unreliable, 20), slow])
    assert good == [photograph(number) for number in range(20)]
    assert isinstance(bad, FetchError) and bad.status is Status.TIMEOUT
    assert str(bad).startswith("the answer came too slowly")
    assert unreliable.requests["/slow/0.jpg"] == 1
    hosts.forget_hosts()
    (reason,) = {each[:30] for each in down(fetched([slow, f"{unreliable.url}/slow/1.jpg"]))}
    assert reason.startswith("the answer came too slowly")


@pytest.mark.parametrize(
    ("code", "retry_after"),
    [(500, "86400"), (500, "9" * 400), (503, "Mon, 1 Jan 99999999999 00:00:00 GMT")],
)
def test_one_image_that_asks_to_wait_for_long_holds_up_no_other(
    unreliable: UnreliableServer, code: int, retry_after: str
) -> None:
    unreliable.retry_after = retry_after
    uris = photographs(unreliable, 20)
    found = fetched([*uris[:2], f"{unreliable.url}/status/{code}/1.jpg", *uris[2:]])
    (failure,) = [each for each in found if isinstance(each, FetchError)]
    assert type(failure) is FetchError and str(code) in str(failure)


def test_a_host_that_asks_to_wait_for_ever_is_asked_again_some_day(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(hosts, "PROBE_SECONDS", 0.0)
    unreliable.down, unreliable.retry_after = "status/503", "9" * 400
    down(fetched(photographs(unreliable, 5)))
    unreliable.down = None
    assert fetched(photographs(unreliable, 5)) == [photograph(number) for number in range(5)]


def test_an_error_that_nobody_expects_is_the_failure_of_its_image(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(*_: object) -> float:
        raise OverflowError("of some date")

    monkeypatch.setattr(retry.Tries, "failed", failed)
    good, bad = fetched([*photographs(unreliable, 1), f"{unreliable.url}/status/500/1.jpg"])
    assert good == photograph(0)
    assert type(bad) is FetchError and str(bad) == "OverflowError: of some date"


def test_images_that_hang_at_the_end_are_told_from_a_host_that_is_down(
    unreliable: UnreliableServer,
) -> None:
    assert fetched(photographs(unreliable, 3)) == [photograph(number) for number in range(3)]
    found = fetched([f"{unreliable.url}/mute/{number}.jpg" for number in range(4)])
    assert {type(each) for each in found} == {FetchError}
    unreliable.down = "mute"
    down(fetched([f"{unreliable.url}/mute/{number}.jpg" for number in range(4)]))


def test_a_single_image_that_the_server_fails_with_is_at_fault(
    unreliable: UnreliableServer,
) -> None:
    (found,) = fetched([f"{unreliable.url}/status/500/1.jpg"])
    assert type(found) is FetchError
    assert unreliable.requests.total() == len(retry.RETRY_DELAYS) + 1


def test_a_host_that_denies_everything_from_some_moment_on_is_down(
    unreliable: UnreliableServer,
) -> None:
    fetched(photographs(unreliable, 3))
    (denied,) = fetched([f"{unreliable.url}/status/403/1.jpg"])
    assert type(denied) is FetchError and denied.status is Status.DENIED
    unreliable.down = "status/403"
    assert down(fetched(photographs(unreliable, 10))) == {"the server answered 403 Forbidden"}


def test_a_host_that_stalls_leaves_threads_to_others(unreliable: UnreliableServer) -> None:
    with unreliable_server() as other:
        other.down = "mute"
        uris = [*photographs(other, 200), *photographs(unreliable, 100)]
        order: list[int] = []
        arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        downloads = Downloads(dict(enumerate(uris)), 10**6)
        downloads.start(arrived.put, len(uris))
        while len(order) < len(uris):
            order.append(arrived.get(timeout=LATE))
        downloads.close()
    assert all(number >= 200 for number in order[:100])


def test_images_that_stall_leave_the_others_of_their_host_a_chance(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "STALL_SECONDS", 0.05)
    mute = [f"{unreliable.url}/mute/{number}.jpg" for number in range(40)]
    found = fetched([*mute, *photographs(unreliable, 40)])
    assert {type(each) for each in found[:40]} == {FetchError}
    assert found[40:] == [photograph(number) for number in range(40)]


def test_a_host_that_answers_again_is_asked_again(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PROBE_SECONDS", 0.0)
    unreliable.down = "status/503"
    down(fetched(photographs(unreliable, 5)))
    down(fetched(photographs(unreliable, 20)))  # one of them tries
    unreliable.down = None
    assert fetched(photographs(unreliable, 5)) == [photograph(number) for number in range(5)]


def test_what_other_workers_say_of_a_host_is_tried_by_one_request(
    unreliable: UnreliableServer,
) -> None:
    hosts.suspect({unreliable.url: "no answer"})
    unreliable.down = "status/503"
    down(fetched(photographs(unreliable, 20)))
    assert unreliable.requests.total() == 1
    configure({})
    hosts.suspect({unreliable.url: "no answer"})
    unreliable.down = None
    assert fetched(photographs(unreliable, 5)) == [photograph(number) for number in range(5)]


def test_bytes_that_wait_to_be_decoded_are_bounded(
    unreliable: UnreliableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_bytes, "MOST_BYTES", 3000)
    monkeypatch.setattr("captioner.jobs.fetching.fetch.PART", 100)
    arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
    downloads = Downloads(dict(enumerate(photographs(unreliable, 30))), 10**6)
    downloads.start(arrived.put, 30)
    most = 0
    for _ in range(30):
        number = arrived.get(timeout=LATE)
        most = max(most, downloads._held._total)
        downloads.take(number)
        downloads.used()
    downloads.close()
    assert most < 3000 + 1500 + downloads_module.THREADS * 100


def test_a_local_archive_is_no_host(tmp_path: Path) -> None:
    assert hosts.host_name(f"zip://a.jpg::{tmp_path}/x.zip") is None
    assert hosts.host_name("zip://a.jpg::s3://bucket/x.zip") == "s3://bucket"
    assert hosts.host_name("HTTPS://u@Example.org:444?x") == "https://example.org:444"
