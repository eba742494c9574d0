"""A GPU process, whose device is a CPU here: it captions for workers, and either may die."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Pipe
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
from captioner.lstm.captioner import LstmCaptioner
from captioner.lstm.gpu import link
from captioner.lstm.gpu.forwarding import ForwardingCaptioner
from captioner.lstm.gpu.intake import Batch, Request
from captioner.lstm.gpu.job import GpuJob
from captioner.lstm.gpu.link import BATCH_SIZE
from captioner.lstm.gpu.place import Place
from captioner.lstm.gpu.process import _answer
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

    def files(self) -> list[int]:
        """Return the file descriptors that it has open."""
        return [int(file.name) for file in Path(f"/proc/{self.process.pid}/fd").iterdir()]

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
    assert worker.max_batch_size == BATCH_SIZE < own.max_batch_size


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
    _, connection, (pixels, *_) = forwarding(job)._link._connect()
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_of_a_run_are_left_to_the_owner(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], number: signal.Signals
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    running.signal(number)
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


def test_a_process_that_hangs_and_cannot_be_ended_is_left_for_the_next_one(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], expected: Sequence[Caption]
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    running.signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as workers:
        answers = [workers.submit(c.caption_batch, images) for c in (captioner, forwarding(job))]
        time.sleep(0.2)  # one waits for its answer, the other one until it is connected
        job.place.renew()
        next_one = Running(job)
        for answer in answers:
            assert_same(answer.result(END_SECONDS), expected)
    next_one.process.kill()


def test_workers_of_a_process_that_hangs_learn_that_it_was_given_up(
    job: GpuJob, running: Running, images: Sequence[DecodedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "LOOK_SECONDS", 0.01)
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    running.signal(signal.SIGSTOP)
    with ThreadPoolExecutor() as workers:
        answer = workers.submit(captioner.caption_batch, images)
        job.place.give_up(CaptionerUnavailable("it is broken"))
        with pytest.raises(CaptionerUnavailable, match="it is broken"):
            answer.result(END_SECONDS)


def test_that_a_process_was_given_up_is_learnt_even_if_the_reason_cannot_be_written(
    job: GpuJob, images: Sequence[DecodedImage]
) -> None:
    (job.place.folder / "error.unfinished").mkdir()  # so it cannot be a file
    job.place.give_up(CaptionerUnavailable("it is broken"))
    with pytest.raises(CaptionerUnavailable, match=r"was given up.*run again"):
        forwarding(job).caption_batch(images[:1])


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    job: GpuJob,
    running: Running,
    images: Sequence[DecodedImage],
    expected: Sequence[Caption],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captioner = forwarding(job)
    captioner.caption_batch(images[:1])
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(captioner._link, "_received", out_of_memory)
        captioner.caption_batch(images[:1])
    assert_same(captioner.caption_batch(images[1:2]), expected[1:2])


def out_of_memory(connection: Connection, _: bytes) -> None:
    assert connection.poll(END_SECONDS)
    raise MemoryError


def test_a_worker_that_never_says_who_it_is_keeps_no_other_waiting(
    job: GpuJob, running: Running, images: Sequence[DecodedImage]
) -> None:
    forwarding(job).caption_batch(images[:1])
    with Client(job.place.address, "AF_UNIX"):
        assert len(forwarding(job).caption_batch(images)) == IMAGES


def test_a_stranger_without_the_key_is_refused(
    job: GpuJob, running: Running, images: Sequence[DecodedImage]
) -> None:
    forwarding(job).caption_batch(images[:1])
    with pytest.raises(AuthenticationError):
        Client(job.place.address, "AF_UNIX", b"another key")
    (job.place.folder / "key").write_bytes(b"another key")
    with pytest.raises(CaptionerUnavailable, match=r"cannot use the GPU process in .*digest"):
        forwarding(job).caption_batch(images)


def test_an_address_that_cannot_be_used_is_an_error_that_names_the_process(
    job: GpuJob, images: Sequence[DecodedImage]
) -> None:
    place = Place(job.place.folder / ("long" * 50))
    place.make()
    with pytest.raises(CaptionerUnavailable, match=r"GPU process in .*too long"):
        forwarding(replace(job, place=place)).caption_batch(images)


def test_a_process_without_room_for_a_worker_refuses_it_and_goes_on(
    job: GpuJob, running: Running, images: Sequence[DecodedImage]
) -> None:
    captioner, late = forwarding(job), forwarding(job)
    captioner.caption_batch(images[:1])
    all_used = 1 + max(running.files())
    holes = all_used - len(running.files())
    idle = [Client(job.place.address, "AF_UNIX") for _ in range(holes)]
    while len(running.files()) < all_used:
        time.sleep(0.01)
    most = all_used + 2  # one for a connection, one that accept(2) has before the next one comes
    assert running.process.pid
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (most, most))
    with pytest.raises(CaptionerUnavailable, match=r"no room .* start fewer workers"):
        late.caption_batch(images)
    assert len(captioner.caption_batch(images)) == IMAGES
    del idle


class FailingJob(GpuJob):
    """A process that cannot caption white images, of which others get to hear, too."""

    def run(self, owner: Connection) -> None:
        find = LstmCaptioner.find

        def find_or_fail(captioner: LstmCaptioner, pixels: Any, measure: Any) -> Any:
            if (pixels == 255).flatten(1).all(1).any():
                raise CaptionerError("numbers are too large")
            return find(captioner, pixels, measure)

        LstmCaptioner.find = find_or_fail  # type: ignore[method-assign]
        super().run(owner)


def test_an_error_in_a_batch_reaches_its_worker_and_the_process_goes_on(
    job: GpuJob, images: Sequence[DecodedImage], expected: Sequence[Caption], forkserver: None
) -> None:
    failing = Running(FailingJob(job.options, job.place, job.most, job.environment))
    white = replace(images[0], pixels=np.full_like(images[0].pixels, 255))
    captioner = forwarding(job)
    with pytest.raises(CaptionerError, match="numbers are too large"):
        captioner.caption_batch([images[0], white])
    assert_same(captioner.caption_batch(images), expected)
    failing.process.kill()


def test_an_error_in_a_batch_reaches_all_its_workers(options: CaptionerOptions) -> None:
    captioner: Any = SimpleNamespace(find=fail)
    batch = Batch(10, 2, torch.device("cpu"))
    pipes = [Pipe() for _ in range(2)]
    for _, theirs in pipes:
        batch.add(Request(theirs, np.zeros((3, 2, 2, 3), np.uint8), []))
    _answer(captioner, batch)
    assert [str(ours.recv()) for ours, _ in pipes] == ["numbers are too large"] * 2


def fail(*_: object) -> None:
    raise CaptionerError("numbers are too large")


def test_nobody_else_may_enter_the_folder_of_a_process(job: GpuJob) -> None:
    assert job.place.folder.stat().st_mode & 0o077 == 0
