"""Budgets: no request beyond the limits, and what a dead task may have spent."""

import threading

import pytest

from captioner.budget import BLOCK, Budget, Prices, Spending
from captioner.errors import BudgetSpent

PRICES = Prices(input=10, output=100, request=1)
USAGE = {"prompt_tokens": 100_000, "completion_tokens": 10_000}  # costs 3


def begin_until_spent(budget: Budget) -> int:
    """Begin and end requests until the budget is spent; return how many there were."""
    for number in range(10_000):
        try:
            budget.begin()
        except BudgetSpent:
            return number
        budget.end(USAGE)
    raise AssertionError("no limit")


def test_many_threads_keep_to_the_limit() -> None:
    budget = Budget(max_requests=1000)
    threads = [threading.Thread(target=begin_until_spent, args=(budget,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent.requests == 1000


def test_the_cost_counts_tokens_and_requests() -> None:
    budget = Budget(max_cost=30.5, prices=PRICES, expected=1.0)
    assert begin_until_spent(budget) == 10
    assert budget.spent == Spending(10, 1_000_000, 100_000, 30.0)


def test_requests_in_flight_count_with_the_cost_of_the_costliest() -> None:
    budget = Budget(max_cost=10.0, prices=PRICES, expected=4.0)
    budget.begin()
    budget.begin()
    with pytest.raises(BudgetSpent, match="the limit of 10 on the cost is reached"):
        budget.begin()


def test_a_request_whose_tokens_nobody_knows_costs_as_much_as_the_costliest() -> None:
    budget = Budget(prices=PRICES, expected=2.0)
    for usage, cost in ((USAGE, 3.0), (None, 6.0), ({}, 7.0)):
        budget.begin()
        budget.end(usage)
        assert budget.spent.cost == cost
    assert budget.spent.requests == 3


def test_what_is_drawn_is_always_at_least_what_is_spent() -> None:
    drawn: list[Spending] = []
    budget = Budget(max_requests=100, prices=PRICES, expected=3.0, draw=drawn.append)
    for _ in range(100):
        budget.begin()
        budget.end(USAGE)
        assert budget.spent.requests <= drawn[-1].requests < budget.spent.requests + BLOCK
        assert budget.spent.cost <= drawn[-1].cost + 1e-9
    assert drawn[-1].requests == 100
    assert len(drawn) == 4


def test_nothing_is_sent_if_it_cannot_be_drawn() -> None:
    def fail(drawn: Spending) -> None:
        raise BudgetSpent("somebody else goes on")

    budget = Budget(max_requests=10, draw=fail)
    for _ in range(2):
        with pytest.raises(BudgetSpent, match="somebody else"):
            budget.begin()
    assert budget.spent.requests == 0


def test_what_was_drawn_at_too_low_a_cost_is_drawn_again() -> None:
    drawn: list[Spending] = []
    budget = Budget(max_requests=100, prices=PRICES, expected=0.1, draw=drawn.append)
    budget.begin()
    assert drawn[-1].cost == pytest.approx(3.2)
    for _ in range(60):
        budget.end(USAGE)
        budget.begin()
        assert budget.spent.cost + 3.0 <= drawn[-1].cost + 1e-9
        assert budget.spent.requests <= drawn[-1].requests
    assert len(drawn) == 3
