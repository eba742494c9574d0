"""The purse of a run: what its tasks may spend on a server, so that all keep to the limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from captioner.budget import Budget, Prices, Spending
from captioner.jobs.config.job import JobConfig
from captioner.openai.prompt import expected_tokens

N = TypeVar("N", int, float)
ATTEMPTS = 2  # requests to reserve for an image: some are sent again


@dataclass(frozen=True)
class Allowance:
    """The part of the purse that one task may spend; None means without limit."""

    requests: int | None = None
    cost: float | None = None
    prices: Prices | None = None
    expected: float = 0.0  # the cost of a request

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self.requests is not None or self.cost is not None

    def budget(self, draw: Callable[[Spending], None] | None = None) -> Budget:
        """Return the budget of a task, which calls `draw` ahead of its requests."""
        return Budget(self.requests, self.cost, self.prices, self.expected, draw)


UNLIMITED, NOTHING = Allowance(), Allowance(requests=0)


class Purse:
    """What a run may still spend, and what it has spent.

    A task reserves what its images may need, and gives back what it did not spend. Until one has
    said what a request costs, there is one at a time, which may spend all.
    """

    def __init__(self, config: JobConfig) -> None:
        self._requests, self._cost = config.max_requests, config.max_cost
        self._prices = Prices(**config.prices)
        self._expected = 0.0
        if config.max_cost is not None:
            self._expected = self._prices.cost(*expected_tokens(config.captioner))
        self._is_known = False  # what a request costs
        self._limits = config.max_requests, config.max_cost
        self.spent = Spending()

    def limits_reached(self) -> str:
        """Return which limits are reached, for people."""
        max_requests, max_cost = self._limits
        reached = []
        if self._requests == 0:
            reached.append(f"max_requests = {max_requests}")
        if self._is_too_little(self._cost) and not self.spent.requests:
            return f"max_cost = {max_cost:g} pays for no request (about {self._expected:.2g})"
        if self._is_too_little(self._cost):
            reached.append(f"max_cost = {max_cost:g}")
        return f"the limit is reached: {', '.join(reached)}"

    def _is_too_little(self, cost: float | None) -> bool:
        """Return whether a request costs more than that."""
        return cost is not None and cost < self._expected

    def allow(self, images: int) -> Allowance | None:
        """Reserve what a task may spend; None if nothing is left until others give back."""
        requests = _share(self._requests, images * ATTEMPTS)
        needed = images * ATTEMPTS * self._expected
        cost = _share(self._cost, needed) if self._is_known else self._cost
        if requests == 0 or self._is_too_little(cost):
            return None
        self._requests = None if self._requests is None else self._requests - (requests or 0)
        self._cost = None if self._cost is None else self._cost - (cost or 0)
        return Allowance(requests, cost, self._prices, self._expected)

    def divided(self, tasks: int) -> Allowance:
        """Return what each of some tasks may spend that run at the same time."""
        requests = None if self._requests is None else self._requests // tasks
        cost = None if self._cost is None else self._cost / tasks
        return Allowance(requests, cost, self._prices, self._expected)

    def settle(self, allowance: Allowance, spent: Spending) -> None:
        """Count what a task has spent, and take the rest of its allowance back."""
        self.spent += spent
        if spent.requests:
            self._is_known = True
            self._expected = max(self._expected, spent.cost / spent.requests)
        if self._requests is not None and allowance.requests is not None:
            self._requests += allowance.requests - spent.requests
        if self._cost is not None and allowance.cost is not None:
            self._cost += allowance.cost - spent.cost


def _share(left: N | None, wanted: N) -> N | None:
    return None if left is None else min(left, wanted)
