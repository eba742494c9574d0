"""The arithmetic of the speed benchmark, and the script that it compares with."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from captioner.lstm.checkpoint import load_checkpoint
from tests.support.int8 import needs_int8
from tests.support.photographs import write_photographs
from tests.support.speed.figures import (
    Row,
    in_turn,
    machine_limit,
    ratio,
    spread,
    steps_limit,
)
from tests.support.speed.job import Job, Measured, job_rows, steady_rate
from tests.support.speed.limits import Alone
from tests.support.speed.machine import FLOPS, multiply_adds
from tests.support.speed.subject import Subject
from tests.support.speed.usual import UsualScript


def test_things_are_measured_in_turn() -> None:
    order: list[str] = []
    things = {name: lambda name=name: order.append(name) or len(order) for name in "ABC"}
    assert in_turn(things, 2) == {"A": [1, 4], "B": [2, 5], "C": [3, 6]}
    assert "".join(order) == "ABCABC"


def test_a_spread_has_the_median_the_lowest_and_the_highest() -> None:
    assert spread([3, 1, 2, 9]) == (2.5, 1, 9)
    assert Row("decode", "ms", [5]).spread == (5, 5, 5)


def test_a_ratio_compares_what_was_measured_in_the_same_round() -> None:
    slow_machine_in_the_second_round = [1, 10, 1]
    assert ratio([2, 20, 2], slow_machine_in_the_second_round) == 2


def test_the_cores_share_all_steps() -> None:
    assert steps_limit(others=0.01, network=0.03, cores=2) == pytest.approx(50)


@pytest.mark.parametrize(("cores", "limit"), [(4, 400), (100, 1000)])
def test_the_slower_of_cores_and_gpus_limits_the_job(cores: int, limit: float) -> None:
    assert steps_limit(others=0.01, network=0.001, cores=cores, gpus=1) == pytest.approx(limit)


def test_the_machine_limits_the_job_by_its_multiply_adds() -> None:
    assert machine_limit(multiply_adds=1e9, rate=80e9, processors=2) == pytest.approx(160)


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=needs_int8)])
def test_fused_layers_have_the_multiply_adds_of_the_layers(precision: str, tmp_path: Path) -> None:
    paths = sorted(write_photographs(tmp_path, 3).iterdir())
    found = multiply_adds(Subject("flickr8k", "cpu", precision), paths)
    encoder = load_checkpoint("flickr8k").model.encoder
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.zeros(1, 256, 256, 3, dtype=torch.uint8))
    assert found["encode"] == counter.get_total_flops() / FLOPS
    assert found["search"] > found["encode"] / 10


def test_the_limits_of_a_job_are_those_of_the_best_times() -> None:
    times = {
        "fetch given": [2, 1],
        "decode given": [1, 2],
        "encode": [9, 5],
        "search": [3, 2],
        "word": [1, 1],
    }
    alone = Alone(times, {"encode": 6e9, "search": 4e9}, [5e9, 10e9])
    assert alone.limits(Job("given", 2), gpus=0) == {"steps": 0.2, "machine": 2}


def test_a_steady_rate_leaves_out_the_first_part_of_each_worker() -> None:
    times = ("00", "01", "05", "06")
    commits = [{"at": f"2026-01-01T00:00:{at}", "images": 10} for at in times]
    assert steady_rate(commits, workers=2) == pytest.approx(20 / 5)
    assert steady_rate(commits, workers=4) is None


def test_a_job_is_compared_with_its_limits_and_with_fewer_cores() -> None:
    one, two = Job("given", 1), Job("given", 2)
    runs = {one: [Measured(5, 10, {})] * 3, two: [Measured(8, 19, {})] * 3}
    limits = {one: {"steps": 10}, two: {"steps": 20}}
    rows = {row.name: row for row in job_rows(runs, limits)}
    assert rows["given, 1 core, steady"].ratios == {"of steps": 1}
    assert rows["given, 2 cores, steady"].ratios == {"of steps": 0.95, "by 1": 1.9}


def test_the_usual_script_says_the_same_in_batches_as_one_at_a_time(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    script = UsualScript(str(tiny_checkpoint), torch.device("cpu"))
    paths = sorted(write_photographs(tmp_path, 5).iterdir())
    captions = script.one_at_a_time(paths)
    assert len(set(captions)) > 1
    assert script.in_batches(paths) == captions
