"""A GPU process, whose device is a CPU here: it captions for workers, and either may die."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from captioner.caption import Caption
from captioner.errors import CaptionerError, CaptionerUnavailable
from captioner.image import DecodedImage
from captioner.loading import open_captioner
from captioner.lstm.gpu import link
from captioner.lstm.gpu.forwarding import ForwardingCaptioner
from captioner.lstm.gpu.intake import Batch, Intake, Request
from captioner.lstm.gpu.job import GpuJob
from captioner.lstm.gpu.place import Place
from captioner.options import CaptionerOptions
from tests.support.photographs import photograph

IMAGES = 40
END_SECONDS = 120
FORKING = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def options(calibrated_checkpoint: Path) -> CaptionerOptions:
    # In bfloat16, the batch of an image matters too much for this small network.
    return CaptionerOptions(
        str(calibrated_checkpoint), device="cpu", precision="float32", embeddings=True
    )


@pytest.fixture(scope="module")
def expected(options: CaptionerOptions) -> Sequence[Caption]:
    """The captions of the images by a captioner in this process."""
    return open_captioner(options).caption([photograph(number) for number in range(IMAGES)])


@pytest.fixture(scope="module")
def images(options: CaptionerOptions) -> Sequence[DecodedImage]:
    captioner = open_captioner(options)
    return [captioner.prepare(photograph(number)) for number in range(IMAGES)]


class Running:
    """A GPU process at a place, and its owner's end of the pipe."""

    def __init__(self, job: GpuJob) -> None:
        self.owner, theirs = FORKING.Pipe()
        self.process = FORKING.Process(target=job.run, args=[theirs], daemon=True)
        self.process.start()
        theirs.close()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def blocks(self) -> int:
        """Count the blocks of memory that it shares."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text()
        return maps.count("memfd:captioner")


@pytest.fixture
def job(options: CaptionerOptions, tmp_path_factory: pytest.TempPathFactory) -> GpuJob:
    place = Place(tmp_path_factory.mktemp("gpu") / "0")
    place.make()
    return GpuJob(options, place, None, {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def running(job: GpuJob, forkserver: None) -> Iterator[Running]:
    running = Running(job)
    yield running
    running.process.kill()
    running.process.join()


def forwarding(job: GpuJob) -> ForwardingCaptioner:
    captioner = open_captioner(job.options, job.place.folder)
    assert isinstance(captioner, ForwardingCaptioner)
    return captioner


def assert_same(captions: Sequence[Any], expected: Sequence[Caption]) -> None:
    assert [caption.text for caption in captions] == [caption.text for caption in expected]
    for caption, other in zip(captions, expected, strict=True):
        assert caption.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert caption.log_prob == pytest.approx(other.log_prob, rel=1e-4)
        assert [word.text for word in caption.words] == [word.text for word in other.words]
        np.testing.assert_allclose(caption.embedding, other.embedding, atol=1e-3)


def test_workers_get_the_captions_of_a_captioner_of_their_own_in_any_mixture_of_batches(
    job: GpuJob,
    running: Running,
    images: Sequence[DecodedImage],
    expected: Sequence[Caption],
    options: CaptionerOptions,
) -> None:
    def caption(size: int) -> list[Any]:
        captioner = forwarding(job)
        starts = range(0, IMAGES, size)
        return [
            a for start in starts for a in captioner.caption_batch(images[start : start + size])
        ]

    with ThreadPoolExecutor() as workers:
        for captions in workers.map(caption, (1, 3, 16, IMAGES)):  # of which the last one takes two
            assert_same(captions, expected)
    worker, own = forwarding(job), open_captioner(options)
    assert (worker.identity, worker.settings) == (own.identity, own.settings)


def test_a_batch_that_a_process_dies_at_is_captioned_by_the_next_one(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], expected: Sequence[Caption]
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    running.signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as workers:
        answers = workers.submit(captioner.caption_batch, images)
        time.sleep(0.2)  # it may have been sent by now, or not
        running.signal(signal.SIGKILL)
        running.process.join()
        next_one = Running(job)
        assert_same(answers.result(END_SECONDS), expected)
    next_one.process.kill()


def test_a_worker_that_dies_leaves_neither_its_batch_nor_its_memory(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], expected: Sequence[Caption]
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    assert running.blocks() == 1
    connected, may_send, sent = (FORKING.Event() for _ in range(3))
    worker = FORKING.Process(target=_send, args=(job, images, connected, may_send, sent))
    worker.start()
    assert connected.wait(END_SECONDS)
    running.signal(signal.SIGSTOP)
    may_send.set()
    assert sent.wait(END_SECONDS)
    worker.kill()
    worker.join()
    running.signal(signal.SIGCONT)
    assert_same(captioner.caption_batch(images), expected)
    while running.blocks() > 1:
        time.sleep(0.01)


def _send(
    job: GpuJob, images: Sequence[DecodedImage], connected: Event, may_send: Event, sent: Event
) -> None:
    """Be a worker that never learns of an answer."""
    connection, (pixels, *_) = forwarding(job)._link._connect()
    connected.set()
    may_send.wait()
    pixels[:5] = images[0].pixels
    connection.send(5)
    sent.set()
    time.sleep(END_SECONDS)


def test_a_process_ends_with_its_owner(running: Running) -> None:
    running.owner.close()
    running.process.join(END_SECONDS)
    assert running.process.exitcode == 0


def test_ctrl_c_is_left_to_the_owner(
    job: GpuJob, running: Running, images: Sequence[DecodedImage]
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    running.signal(signal.SIGINT)
    assert len(captioner.caption_batch(images)) == IMAGES
    assert running.process.is_alive()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"checkpoint": "/nowhere"}, "/nowhere"), ({"device": "auto"}, "cannot use the GPU")],
)
def test_a_captioner_that_cannot_be_loaded_is_told_to_the_owner(
    job: GpuJob, changes: dict[str, Any], reason: str, forkserver: None
) -> None:
    options = replace(job.options, **changes)
    broken = Running(replace(job, options=options, environment={"CUDA_VISIBLE_DEVICES": ""}))
    error = broken.owner.recv()
    assert isinstance(error, CaptionerError) and reason in str(error)
    broken.process.join(END_SECONDS)
    assert not broken.process.is_alive()


def test_a_worker_with_another_model_is_refused(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], tiny_checkpoint: Path
) -> None:
    options = replace(job.options, checkpoint=str(tiny_checkpoint))
    captioner = open_captioner(options, job.place.folder)
    with pytest.raises(CaptionerError, match="the model has changed since the run began"):
        captioner.caption_batch(images[:1])


def test_workers_learn_why_a_process_was_given_up(
    job: GpuJob, images: Sequence[DecodedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "POLL_SECONDS", 0.01)
    with ThreadPoolExecutor() as workers:
        answers = workers.submit(forwarding(job).caption_batch, images)
        time.sleep(0.1)
        assert not answers.done()
        job.place.give_up(CaptionerUnavailable("it is broken"))
        with pytest.raises(CaptionerUnavailable, match="it is broken"):
            answers.result(END_SECONDS)


def test_nobody_else_may_enter_the_folder_of_a_process(job: GpuJob) -> None:
    assert job.place.folder.stat().st_mode & 0o077 == 0


def request_of(value: int, images: int) -> Request:
    connection: Any = SimpleNamespace(send=print)
    return Request(connection, np.full((images, 2, 2, 3), value, np.uint8), [])


def intake_of(most: int) -> Intake:
    first, second = (Batch(most, 2, torch.device("cpu")) for _ in range(2))
    return Intake(first, second)


def test_what_has_come_is_one_batch_and_what_comes_meanwhile_the_next_one() -> None:
    intake = intake_of(10)
    intake.put(request_of(1, 3))
    intake.put(request_of(2, 4))
    batch = intake.take()
    intake.put(request_of(3, 10))
    assert [len(each.pixels) for each in batch.requests] == [3, 4]
    assert batch.pixels[:, 0, 0, 0].tolist() == [1] * 3 + [2] * 4
    batch.clear()
    assert intake.take().pixels.unique().tolist() == [3]
    intake.put(request_of(4, 2))
    assert intake.take().pixels.unique().tolist() == [4]


def test_a_request_that_finds_no_room_waits_for_the_next_batch() -> None:
    intake = intake_of(10)
    intake.put(request_of(1, 8))
    late = threading.Thread(target=intake.put, args=[request_of(2, 4)])
    late.start()
    late.join(0.05)
    assert late.is_alive()
    assert intake.take().images == 8
    late.join(END_SECONDS)
    assert intake.take().images == 4
