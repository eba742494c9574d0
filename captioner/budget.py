"""Budget: how much a captioner may ask a server, and what it has spent."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from captioner.errors import BudgetSpent

TOKENS = 1_000_000  # that a price is for
BLOCK = 32  # requests that are drawn at once


@dataclass(frozen=True)
class Spending:
    """Requests sent, the tokens that the server counted, and their cost."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


@dataclass(frozen=True)
class Prices:
    """Prices in any currency: of a million tokens that are sent, or received, and of a request."""

    input: float = 0.0
    output: float = 0.0
    request: float = 0.0

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Return the cost of one request."""
        return self.request + (input_tokens * self.input + output_tokens * self.output) / TOKENS


class Budget:
    """Limits on requests and cost, and what has been spent. Thread-safe.

    A request is allowed before it is sent: if the costliest known one, `expected` at first, would
    exceed the limit together with those in flight, it is not. `draw` is called ahead of every few
    requests with what will have been spent, at most, before the next call; it may raise.
    """

    def __init__(
        self,
        max_requests: int | None = None,
        max_cost: float | None = None,
        prices: Prices | None = None,
        expected: float = 0.0,
        draw: Callable[[Spending], None] | None = None,
    ) -> None:
        self.max_requests, self.max_cost = max_requests, max_cost
        self.prices = prices or Prices()
        self.spent = Spending()
        self._costliest = expected
        self._draw = draw
        self._drawn = 0  # requests
        self._drawn_at = expected  # cost of each
        self._in_flight = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count a request that is about to be sent; raise BudgetSpent if it is one too many."""
        with self._lock:
            if self.max_requests is not None and self.spent.requests >= self.max_requests:
                raise BudgetSpent(f"the limit of {self.max_requests} requests is reached")
            cost = self.spent.cost + (self._in_flight + 1) * self._costliest
            if self.max_cost is not None and cost > self.max_cost:
                raise BudgetSpent(f"the limit of {self.max_cost:g} on the cost is reached")
            self._draw_block()
            self.spent += Spending(requests=1)
            self._in_flight += 1

    def _draw_block(self) -> None:
        """Draw the next block, if the last one is used up, or was drawn at a lower cost."""
        is_dearer = self._costliest > self._drawn_at
        if self._draw and (is_dearer or self.spent.requests == self._drawn):
            requests = BLOCK
            if self.max_requests is not None:
                requests = min(BLOCK, self.max_requests - self.spent.requests)
            cost = (self._in_flight + requests) * self._costliest
            if self.max_cost is not None:
                cost = min(cost, self.max_cost - self.spent.cost)
            self._draw(self.spent + Spending(requests=requests, cost=cost))
            self._drawn = self.spent.requests + requests
            self._drawn_at = self._costliest

    def end(self, usage: Mapping[str, int] | None = None) -> None:
        """Count the tokens of a request that has ended, as its answer's `usage` has them.

        {} stands for no tokens. None means that nobody knows: the cost is then that of the
        costliest known request.
        """
        known = usage or {}
        tokens = known.get("prompt_tokens", 0), known.get("completion_tokens", 0)
        cost = self.prices.cost(*tokens)
        with self._lock:
            self._in_flight -= 1
            self._costliest = max(self._costliest, cost)
            self.spent += Spending(0, *tokens, self._costliest if usage is None else cost)
