"""The purse: the allowances of all tasks together keep to the limits of the run."""

from typing import Any

import pytest

from captioner.budget import Spending
from captioner.jobs import JobConfig
from captioner.jobs.execution.tasks.purse import NOTHING, Purse

PRICES = {"input": 100.0, "output": 1000.0}


def purse(**values: Any) -> Purse:
    return Purse(JobConfig(source="a", out="b", checkpoint="openai:any", **values))


def test_without_limits_a_task_has_none() -> None:
    allowance = purse().allow(500)
    assert allowance is not None
    assert not allowance.is_limited


def test_tasks_reserve_what_their_images_may_need_and_give_the_rest_back() -> None:
    money = purse(max_requests=100)
    first, second = money.allow(30), money.allow(30)
    assert first is not None and second is not None
    assert (first.requests, second.requests) == (60, 40)
    assert money.allow(30) is None
    money.settle(first, Spending(requests=30))
    third = money.allow(30)
    assert third is not None
    assert third.requests == 30
    money.settle(second, Spending(requests=40))
    money.settle(third, Spending(requests=30))
    assert money.allow(30) is None
    assert money.spent.requests == 100


def test_until_the_cost_of_a_request_is_known_one_task_has_it_all() -> None:
    money = purse(max_cost=50.0, prices=PRICES)
    first = money.allow(10)
    assert first is not None
    assert first.cost == 50.0
    assert money.allow(10) is None
    money.settle(first, Spending(10, 0, 0, 10.0))
    second, third = money.allow(10), money.allow(15)
    assert second is not None and third is not None
    assert second.cost == pytest.approx(20.0)  # twice what ten requests cost
    assert third.cost == pytest.approx(20.0)  # the rest


def test_an_image_that_is_not_opened_again_needs_nothing() -> None:
    money = purse(max_requests=10)
    money.settle(NOTHING, Spending())
    allowance = money.allow(100)
    assert allowance is not None
    assert allowance.requests == 10


def test_only_a_limit_that_is_reached_is_named() -> None:
    money = purse(max_requests=10, max_cost=50.0, prices=PRICES)
    allowance = money.allow(5)
    assert allowance is not None
    money.settle(allowance, Spending(requests=10, cost=5.0))
    assert money.limits_reached() == "the limit is reached: max_requests = 10"
    money = purse(max_requests=1000, max_cost=0.5, prices=PRICES)
    allowance = money.allow(5)
    assert allowance is not None
    money.settle(allowance, Spending(requests=10, cost=0.5))
    assert money.limits_reached() == "the limit is reached: max_cost = 0.5"


def test_a_limit_that_pays_for_nothing_is_said_to_be_too_small() -> None:
    money = purse(max_cost=0.0001, prices=PRICES)
    assert money.allow(5) is None
    assert money.limits_reached().startswith("max_cost = 0.0001 pays for no request (about 0.1")
