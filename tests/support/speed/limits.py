"""Each step alone, a large matrix product beside them, and the limits that follow for the job."""

from collections.abc import Mapping
from typing import NamedTuple

from tests.support.speed.figures import Row, Table, in_turn, machine_limit, steps_limit
from tests.support.speed.job import Job, Limits
from tests.support.speed.machine import Product, machine_rows, multiply_adds
from tests.support.speed.photographs import Photographs
from tests.support.speed.steps import Times, step_rows, step_things
from tests.support.speed.subject import Subject

PRODUCT = "product"


class Alone(NamedTuple):
    """The seconds of an image in each step, and what the model takes of the machine."""

    times: Times
    multiply_adds: Mapping[str, float]  # of an image, in the encoder and in the search
    rates: list[float]  # of the matrix product, in multiply-adds a second

    def limits(self, job: Job, gpus: int) -> dict[str, float]:
        """Return the most images/s of a job, by the name of the limit."""
        best = {name: min(seconds) for name, seconds in self.times.items()}
        on_cores = best[f"fetch {job.size}"] + best[f"decode {job.size}"] + best["word"]
        network = best["encode"] + best["search"]
        whole = sum(self.multiply_adds.values())
        return {
            "steps": steps_limit(on_cores, network, job.cores, gpus),
            "machine": machine_limit(whole, max(self.rates), gpus or job.cores),
        }

    def tables(self, limits: Limits) -> list[Table]:
        """Return the steps, the machine, and the limits of jobs."""
        rows = [
            Row(f"{job.name}, {name}", "images/s", [most])
            for job, of_job in limits.items()
            for name, most in of_job.items()
        ]
        return [
            Table("each step alone, on one core", step_rows(self.times)),
            Table("the model on one core", machine_rows(self.multiply_adds, self.rates)),
            Table("limits of the job", rows),
        ]


def measure_alone(subject: Subject, sets: Photographs, rounds: int) -> Alone:
    """Measure the steps and the product in turn, after a round that warms them up."""
    things = {**step_things(subject, sets), PRODUCT: Product(subject).rate}
    in_turn(things, 1)
    times = in_turn(things, rounds)
    rates = times.pop(PRODUCT)
    return Alone(times, multiply_adds(subject, next(iter(sets.values()))), rates)
