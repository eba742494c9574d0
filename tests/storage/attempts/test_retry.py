"""What counts as a failure of an image, by a clock that the tests set."""

import pytest
from aiohttp import ClientResponseError, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from captioner.jobs.errors import FetchError, HostBusy, HostDown
from captioner.jobs.storage.attempts.hosts import Host
from captioner.jobs.storage.attempts.retry import BUSY_ATTEMPTS, FETCH_SECONDS, RETRY_DELAYS, Tries
from tests.support.clock import Clock

URI = "https://example.org/7.jpg"


def refusal() -> ClientResponseError:
    headers = CIMultiDictProxy(CIMultiDict({"Retry-After": "1"}))
    request = RequestInfo(URL(URI), "GET", headers, URL(URI))
    return ClientResponseError(request, (), status=429, headers=headers)


def fail(tries: Tries, clock: Clock, error: Exception, seconds: float) -> float:
    """Make an attempt that fails after some seconds, while the host gives another image."""
    began = tries.begin()
    clock.now += seconds
    tries.host.gave("https://example.org/other.jpg")
    tries.failed(error)
    return began.seconds


def test_refusals_take_neither_time_nor_attempts_from_an_image(clock: Clock) -> None:
    tries = Tries(URI, Host("https://example.org"))
    for _ in range(BUSY_ATTEMPTS - 1):
        assert fail(tries, clock, refusal(), FETCH_SECONDS / 4) == FETCH_SECONDS
    for _ in RETRY_DELAYS:
        fail(tries, clock, ConnectionResetError(), 0.1)
    with pytest.raises(FetchError, match="the connection was closed") as failure:
        fail(tries, clock, ConnectionResetError(), 0.1)
    assert not isinstance(failure.value, HostDown)


def test_an_image_that_is_refused_too_often_is_left_and_its_host_goes_on(clock: Clock) -> None:
    host = Host("https://example.org")
    tries = Tries(URI, host)
    for _ in range(BUSY_ATTEMPTS - 1):
        fail(tries, clock, refusal(), 0.1)
    with pytest.raises(HostBusy, match="429 Too Many Requests"):
        fail(tries, clock, refusal(), 0.1)
    assert host.trouble is None


def test_a_host_that_refuses_all_images_is_called_busy(clock: Clock) -> None:
    host = Host("https://example.org")
    tries = Tries(URI, host)
    tries.begin()
    tries.failed(refusal())
    clock.now += 2 * FETCH_SECONDS
    with pytest.raises(HostBusy, match="429 Too Many Requests"):
        tries.failed(refusal())
    with pytest.raises(HostBusy, match="429 Too Many Requests"):
        host.claim()
