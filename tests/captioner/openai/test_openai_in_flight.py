"""How many requests are in flight: the limit grows, falls, and rests."""

import asyncio
import time

import pytest

from captioner.errors import CaptionerUnavailable
from captioner.openai.client import Trouble
from captioner.openai.in_flight import FIRST, MOST, InFlight

BUSY = Trouble("busy", is_busy=True)


def test_the_limit_doubles_in_each_round_until_trouble_and_then_grows_by_one() -> None:
    slots = InFlight()
    for _ in range(FIRST):
        slots.replied()
    assert slots.limit == 2 * FIRST
    slots.troubled(BUSY, time.monotonic())
    assert slots.limit == FIRST
    for _ in range(FIRST + 1):
        slots.replied()
    assert FIRST + 1 <= slots.limit < FIRST + 1.5


def test_the_limit_has_bounds() -> None:
    slots = InFlight()
    for _ in range(1000):
        slots.replied()
    assert slots.limit == MOST
    for _ in range(20):
        slots.troubled(BUSY, time.monotonic())
    assert slots.limit == 1


def test_troubles_of_one_round_count_once() -> None:
    slots = InFlight()
    began = time.monotonic()
    for _ in range(4):
        slots.troubled(BUSY, began)
    assert slots.limit == FIRST / 2


def test_a_single_fault_does_not_slow_the_others_down() -> None:
    slots = InFlight()
    fault = Trouble("status 500", blame=1)
    slots.troubled(fault, time.monotonic())
    assert slots.limit == FIRST
    slots.troubled(fault, time.monotonic())
    assert slots.limit == FIRST / 2


def test_pauses_grow_to_the_longest() -> None:
    slots = InFlight(longest_pause=3.0)
    pauses = [slots.troubled(BUSY, time.monotonic()) for _ in range(20)]
    assert pauses[0] <= 0.5
    assert 1.5 <= pauses[-1] <= 3.0
    assert slots.troubled(Trouble("", retry_after=60.0), time.monotonic()) >= 59.0


def test_no_more_are_in_flight_than_the_limit() -> None:
    slots = InFlight()
    active = most = 0

    async def request() -> None:
        nonlocal active, most
        async with slots.slot():
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.001)
            active -= 1

    async def requests() -> None:
        await asyncio.gather(*(request() for _ in range(50)))

    asyncio.run(requests())
    assert (active, most) == (0, FIRST)


def test_a_stop_wakes_all_who_wait() -> None:
    slots = InFlight()
    slots.troubled(Trouble("", retry_after=1000.0), time.monotonic())

    async def request() -> None:
        async with slots.slot():
            pass

    async def requests() -> list[object]:
        waiting = asyncio.gather(*(request() for _ in range(10)), return_exceptions=True)
        await asyncio.sleep(0)
        await slots.stop(CaptionerUnavailable("no server"))
        return await waiting

    errors = asyncio.run(requests())
    assert {type(error) for error in errors} == {CaptionerUnavailable}
    assert len({id(error) for error in errors}) == 10


def test_a_cancelled_request_frees_its_slot() -> None:
    slots = InFlight(most=1)

    async def hold() -> None:
        async with slots.slot():
            await asyncio.sleep(1000)

    async def requests() -> None:
        held = asyncio.create_task(hold())
        await asyncio.sleep(0)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        async with slots.slot():
            pass

    asyncio.run(requests())
