"""What is known of hosts: how many requests they bear, by a clock that the tests set."""

import math
import threading

import pytest

from captioner.jobs.storage.attempts import hosts
from captioner.jobs.storage.attempts.hosts import STALL_SECONDS, Host, host_of
from captioner.jobs.storage.attempts.pace import SLOWEST, Pace
from tests.support.clock import Clock


def claim(host: Host) -> float:
    """Claim a host in another thread."""
    waits: list[float] = []
    thread = threading.Thread(target=lambda: waits.append(host.claim()))
    thread.start()
    thread.join()
    return waits[0]


def test_a_request_leaves_its_place_to_another_only_if_it_brings_nothing(clock: Clock) -> None:
    host = Host("https://example.org", limit=1)
    assert host.claim() == 0.0
    own = threading.get_ident()
    enough = int(SLOWEST * STALL_SECONDS)
    for round_ in range(1, 4):
        clock.now += STALL_SECONDS / 2 + 0.1
        host.heard(own, round_ * enough, waits=False)
        assert claim(host) == math.inf and not host.may_stall()
    clock.now += STALL_SECONDS + 0.1
    host.heard(own, 3 * enough, waits=True)
    assert claim(host) == math.inf
    clock.now += STALL_SECONDS + 0.1
    host.heard(own, 3 * enough + 10, waits=False)
    assert claim(host) == 0.0 and host.may_stall()


def test_an_answer_is_too_slow_if_it_brings_too_few_bytes_in_the_time_it_has(clock: Clock) -> None:
    answer = Pace(60.0)
    for _ in range(8):
        clock.now += 59.0
        answer.received(60 * SLOWEST)
        answer.check()
    clock.now += 59.0
    answer.received(60 * SLOWEST - 1)
    answer.check()
    answer.waited(30.0)
    clock.now += 30.0
    answer.check()
    clock.now += 2.0
    with pytest.raises(TimeoutError, match="too slowly: 59999 bytes in 60 s"):
        answer.check()


def test_an_answer_that_drips_is_too_slow_as_a_whole_within_minutes(clock: Clock) -> None:
    answer, began = Pace(120.0), clock.now
    with pytest.raises(TimeoutError, match=r"too slowly: \d{7} bytes in 6\d\d s"):
        for _ in range(3600):
            clock.now += 1.0
            answer.received(2 * SLOWEST)
            answer.check()
    assert answer.since == began  # so that nobody asks for it again


def test_large_images_pass_on_a_line_that_a_hundred_readers_share(clock: Clock) -> None:
    answer, size = Pace(120.0), 50 * 10**6
    for _ in range(0, size, 10**5):
        clock.now += 0.8  # 100 Mbit/s for all of them
        answer.received(10**5)
        answer.check()


def test_hosts_that_nobody_asked_for_lately_are_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "MOST_HOSTS", 3)
    asked = host_of("https://asked.example/a.jpg")
    assert asked and asked.claim() == 0.0
    last = [host_of(f"https://{number}.example/a.jpg") for number in range(10)][-1]
    hosts.suspect({f"https://{number}.suspect": "no answer" for number in range(10)})
    assert len(hosts._hosts) == 3
    assert host_of("https://asked.example/b.jpg") is asked
    assert host_of("https://9.example/a.jpg") is not last
