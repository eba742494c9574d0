"""Runs whose hosts limit requests, go down, and come back, on real servers."""

import errno
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.jobs.cli.main import main
from captioner.jobs.errors import MACHINE
from captioner.jobs.execution.worker import run_state
from captioner.jobs.fetching import fetch
from captioner.jobs.pipeline import loading
from captioner.jobs.storage import filesystems
from captioner.jobs.storage.attempts import hosts, retry
from captioner.lstm.captioner import LstmCaptioner
from captioner.schemas.job_report import JobReport
from tests.support.photographs import write_photographs
from tests.support.tables import read_table
from tests.support.unreliable import UnreliableServer, unreliable_server

FETCH_SECONDS = retry.FETCH_SECONDS  # as users have it
Hosts = tuple[UnreliableServer, UnreliableServer]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all limits short."""
    monkeypatch.setattr(retry, "RETRY_DELAYS", (0.05, 0.1))
    monkeypatch.setattr(retry, "FETCH_SECONDS", 2.0)
    monkeypatch.setattr(hosts, "LONGEST_BACK_OFF", 0.1)
    monkeypatch.setattr(filesystems, "HTTP_READ_SECONDS", 2.0)


@pytest.fixture
def closed() -> Iterator[str]:
    """Yield the URL of a port that refuses connections, and that no other server takes."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def two_hosts() -> Iterator[Hosts]:
    with unreliable_server() as one, unreliable_server() as other:
        yield one, other


@pytest.fixture
def job(tmp_path: Path, one_worker: str, tiny_checkpoint: Path) -> JobConfig:
    return JobConfig(
        source=tmp_path / "list.txt",
        out=tmp_path / "out",
        checkpoint=tiny_checkpoint,
        scheduler=one_worker,
        batch_size=8,
        partition_size=10,
        quiet=True,
        allow_private=True,
    )


def write(job: JobConfig, *uris: str) -> None:
    Path(str(job.source)).write_text("".join(f"{uri}\n" for uri in uris))


def photographs(server: UnreliableServer, count: int) -> list[str]:
    return [f"{server.url}/ok/{number}.jpg" for number in range(count)]


def captioned(out: Path) -> Counter[str]:
    """Return how many rows with a caption each host has; each image has one row at most."""
    rows = read_table(out).to_pylist()
    assert len({row["image_uri"] for row in rows}) == len(rows)
    assert {row["status"] for row in rows} <= {"ok"}
    return Counter(row["image_uri"].partition("/ok/")[0] for row in rows)


def in_report(report: JobReport) -> tuple[int, int, dict[str, int]]:
    return report.exit_code, report.captioned, dict(report.outages)


def test_the_images_of_a_host_that_is_down_have_no_row_and_the_next_run_does_them(
    job: JobConfig, two_hosts: Hosts, tmp_path: Path
) -> None:
    good, bad = two_hosts
    mixed = [
        uri
        for pair in zip(photographs(good, 25), photographs(bad, 25), strict=True)
        for uri in pair
    ]
    write(job, *mixed)
    bad.down = "status/503"
    report = run_job(job)
    assert in_report(report) == (75, 25, {bad.url: 25})
    assert (report.planned, report.postponed, report.failed) == (25, 25, 0)
    reason = f"{bad.url} does not answer: the server answered 503 Service Unavailable (25 images)"
    assert report.stopped == report.error == reason
    assert captioned(tmp_path / "out") == {good.url: 25}

    bad.down = None
    report = run_job(job)
    assert in_report(report) == (0, 25, {})
    assert captioned(tmp_path / "out") == {good.url: 25, bad.url: 25}
    assert set(good.requests.values()) == {1}


def test_images_that_a_machine_has_too_few_open_files_for_have_no_row(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photographs(tmp_path / "photos", 12)
    write(job, *map(str, sorted(photos.iterdir())))
    check = fetch.check_regular

    def check_all_but_one(path: str) -> None:
        if path.endswith(bad):
            raise OSError(errno.EMFILE, "Too many open files", path)
        check(path)

    bad = sorted(photos.iterdir())[3].name
    monkeypatch.setattr(fetch, "check_regular", check_all_but_one)
    report = run_job(job)
    assert in_report(report) == (75, 11, {MACHINE: 1})
    assert f"{MACHINE} is at fault: [Errno 24] Too many open files" in str(report.stopped)
    assert "allow more open files (ulimit -n) (1 image)" in str(report.stopped)
    monkeypatch.setattr(fetch, "check_regular", check)
    failures = [RuntimeError("can't start new thread")]  # as Python says it

    class Pool(ThreadPoolExecutor):
        def submit(self, *given: Any, **rest: Any) -> Any:
            if failures:
                raise failures.pop()
            return super().submit(*given, **rest)

    monkeypatch.setattr(loading, "ThreadPoolExecutor", Pool)
    assert in_report(run_job(job)) == (0, 1, {}), "it was tried again"
    assert not failures
    assert sum(captioned(tmp_path / "out").values()) == 12


@pytest.mark.parametrize(
    "error", ["CUDA error: unspecified launch failure", "CUDA out of memory. Tried to allocate"]
)
def test_images_for_which_a_gpu_fails_have_no_row(
    job: JobConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    photos = write_photographs(tmp_path / "photos", 4)
    write(job, *map(str, photos.iterdir()))
    encode = LstmCaptioner.encode

    def fail(*_: object) -> None:
        raise RuntimeError(f"{error}\nFor debugging ...")

    monkeypatch.setattr(LstmCaptioner, "encode", fail)
    report = run_job(job)
    assert in_report(report) == (75, 0, {MACHINE: 4})
    assert f"{MACHINE} is at fault: [Errno 5] {error}" in str(report.stopped)
    assert "nvidia-smi" in str(report.stopped) and "debugging" not in str(report.stopped)
    monkeypatch.setattr(LstmCaptioner, "encode", encode)
    assert in_report(run_job(job)) == (0, 4, {})


def test_a_host_that_comes_back_during_a_run_costs_nothing(
    job: JobConfig, two_hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = two_hosts
    monkeypatch.setattr(hosts, "PROBE_SECONDS", 0.0)
    write(job, *photographs(bad, 30), *photographs(good, 10))
    bad.down = "reset"
    captioning = run_state.RunState.known_captions

    def known(state: run_state.RunState, run: object) -> object:
        if good.requests:  # the last task has begun
            bad.down = None
        return captioning(state, run)  # type: ignore[arg-type]

    monkeypatch.setattr(run_state.RunState, "known_captions", known)
    assert in_report(run_job(job)) == (0, 40, {})
    assert captioned(tmp_path / "out") == {bad.url: 30, good.url: 10}


def test_rows_to_replace_stay_while_their_host_is_down(
    job: JobConfig, unreliable: UnreliableServer, tmp_path: Path
) -> None:
    write(job, *photographs(unreliable, 5))
    run_job(job)
    unreliable.down = "mute"
    assert in_report(run_job(replace(job, force=True))) == (75, 0, {unreliable.url: 5})
    assert captioned(tmp_path / "out") == {unreliable.url: 5}


def test_a_host_that_limits_requests_gives_all_its_images(
    job: JobConfig, unreliable: UnreliableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FETCH_SECONDS", FETCH_SECONDS)
    monkeypatch.setattr(filesystems, "HTTP_READ_SECONDS", FETCH_SECONDS)
    write(job, *photographs(unreliable, 12))
    unreliable.limit, unreliable.window = 4, 1.0
    assert in_report(run_job(job)) == (0, 12, {})
    assert captioned(tmp_path / "out") == {unreliable.url: 12}
    assert unreliable.refused


def test_an_image_that_a_host_refuses_while_it_gives_others_has_no_row(
    job: JobConfig, unreliable: UnreliableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BUSY_ATTEMPTS", 2)
    write(job, f"{unreliable.url}/status/429/1.jpg", *photographs(unreliable, 20))
    report = run_job(job)
    assert in_report(report) == (75, 20, {unreliable.url: 1})
    assert captioned(tmp_path / "out") == {unreliable.url: 20}
    assert report.stopped == (
        f"{unreliable.url} refuses requests: the server answered 429 Too Many Requests: "
        "use fewer workers, or run again later (1 image)"
    )


def test_the_command_says_which_host_does_not_answer(
    job: JobConfig, closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(job, *(f"{closed}/ok/{number}.jpg" for number in range(3)))
    options = ["--out", job.out, "--checkpoint", job.checkpoint, "--scheduler", job.scheduler]
    options.append("--allow-private")
    assert main(["run", str(job.source), *map(str, options)]) == 75
    said = capsys.readouterr().err
    assert f"{closed} does not answer: the connection was refused (3 images)" in said
    assert "left for a later run: 3 images" in said


def test_a_plan_whose_sample_cannot_be_fetched_ends_and_can_be_tried_again(
    job: JobConfig, closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(job, *(f"{closed}/ok/{number}.jpg" for number in range(3)))
    options = ["--out", job.out, "--checkpoint", job.checkpoint, "--scheduler", job.scheduler]
    options.append("--allow-private")
    assert main(["plan", str(job.source), *map(str, options)]) == 75
    assert f"{closed} does not answer: the connection was refused" in capsys.readouterr().err


def test_one_caption_is_asked_for_and_the_error_says_why_there_is_none(
    tiny_checkpoint: Path,
    unreliable: UnreliableServer,
    closed: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = [*photographs(unreliable, 1), f"{closed}/ok/0.jpg", f"{unreliable.url}/status/404/1.jpg"]
    assert main(["caption", *urls, "--checkpoint", str(tiny_checkpoint)]) == 3
    said = capsys.readouterr()
    assert unreliable.url in said.out
    assert "the connection was refused" in said.err and "404 Not Found" in said.err
