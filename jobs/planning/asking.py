"""What a run would ask a server, and what that would cost."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from captioner.budget import Prices, Spending
from captioner.jobs.config.job import JobConfig
from captioner.openai.prompt import expected_tokens


@dataclass(frozen=True)
class Asking:
    """What a run would send and receive, within its limits, for the first `images` of the plan.

    `cost` is None without prices. The `sample` was asked about already, to find out.
    """

    images: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    sample: Spending = field(default_factory=Spending)


def asking(config: JobConfig, images: int, sampled: int, spent: Iterable[Spending]) -> Asking:
    """Return what a run about `images` would ask, by what was `spent` on the `sampled` ones.

    Without a sample, or if the server did not count, the tokens are those that one may expect.
    """
    sample = sum(spent, Spending())
    each = 1 / sampled if sampled else 0.0
    requests = max(sample.requests * each, 1.0)
    tokens = sample.input_tokens * each, sample.output_tokens * each
    if not all(tokens):
        tokens = expected_tokens(config.captioner)
    prices = Prices(**config.prices)
    cost = requests * prices.request + replace(prices, request=0.0).cost(*tokens)
    affordable = _affordable(config, images, requests, cost)
    return Asking(
        images=affordable,
        requests=round(affordable * requests),
        input_tokens=round(affordable * tokens[0]),
        output_tokens=round(affordable * tokens[1]),
        cost=round(affordable * cost, 6) if config.prices else None,
        sample=sample,
    )


def _affordable(config: JobConfig, images: int, requests: float, cost: float) -> int:
    """Return about how many images the limits allow, given the requests and the cost of each."""
    most = float(images)
    if config.max_requests is not None:
        most = min(most, config.max_requests / requests)
    if config.max_cost is not None and cost:
        most = min(most, config.max_cost / cost)
    return int(most)
