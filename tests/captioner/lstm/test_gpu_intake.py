"""The batches of a GPU process: what has come meanwhile, as far as there is room."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from captioner.lstm.gpu.intake import Batch, Intake, Request

END_SECONDS = 120


def request_of(value: int, images: int) -> Request:
    connection: Any = SimpleNamespace(send=print)
    return Request(connection, np.full((images, 2, 2, 3), value, np.uint8), [])


def intake_of(most: int) -> Intake:
    first, second = (Batch(most, 2, torch.device("cpu")) for _ in range(2))
    return Intake(first, second)


def taken(intake: Intake) -> Batch:
    batch = intake.take(END_SECONDS)
    assert batch
    return batch


def test_without_a_request_no_batch_is_taken() -> None:
    assert intake_of(10).take(0.01) is None


def test_what_has_come_is_one_batch_and_what_comes_meanwhile_the_next_one() -> None:
    intake = intake_of(10)
    intake.put(request_of(1, 3))
    intake.put(request_of(2, 4))
    batch = taken(intake)
    intake.put(request_of(3, 10))
    assert [len(each.pixels) for each in batch.requests] == [3, 4]
    assert batch.pixels[:, 0, 0, 0].tolist() == [1] * 3 + [2] * 4
    batch.clear()
    assert taken(intake).pixels.unique().tolist() == [3]
    intake.put(request_of(4, 2))
    assert taken(intake).pixels.unique().tolist() == [4]


def test_a_request_that_finds_no_room_waits_for_the_next_batch() -> None:
    intake = intake_of(10)
    intake.put(request_of(1, 8))
    late = threading.Thread(target=intake.put, args=[request_of(2, 4)])
    late.start()
    late.join(0.05)
    assert late.is_alive()
    assert taken(intake).images == 8
    late.join(END_SECONDS)
    assert taken(intake).images == 4
