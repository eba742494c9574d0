"""Which workers of a scheduler may have tasks, and what is said about the others."""

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copytree

import dask
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Client, LocalCluster

from captioner.jobs.errors import TemporaryError
from captioner.jobs.execution.cluster.fitness import PACKAGES, Wanted, difference
from captioner.jobs.execution.cluster.workers import Workers
from captioner.options import CaptionerOptions
from tests.support.commands import GIVE_UP_SECONDS, command
from tests.support.photographs import write_photographs
from tests.support.tables import read_table, statuses

ROOT = Path(__file__).parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


def not_told(*_: object, **__: object) -> None:
    """Tell nobody."""


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """The variables of Dask for TLS, with a certificate that exists for this test alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, form, plain))
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(pem))
    tls = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(tmp_path / "cert.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = str(tmp_path / "key.pem")
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = str(tmp_path / "cert.pem")
    return tls


@pytest.fixture
def start(tmp_path: Path, certificates: dict[str, str]) -> Iterator[Start]:
    """Start processes that end with the test; `before` is a shell command in their own mounts."""
    processes = []

    def start(*line: object, root: Path = ROOT, before: str = "") -> "subprocess.Popen[str]":
        words = [*map(str, line)]
        if before:
            words = ["unshare", "-m", "sh", "-c", f'{before} && exec "$@"', "sh", *words]
        variables = os.environ | certificates | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        log = (tmp_path / f"{len(processes)}.log").open("w+")
        process = subprocess.Popen(words, env=variables, cwd=tmp_path, stderr=log, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@contextmanager
def mounts_or_skip() -> Iterator[None]:
    line = ["unshare", "-m", "true"]
    if os.getuid() != 0 or subprocess.run(line, check=False).returncode:
        pytest.skip("this user may not mount folders")
    yield


def other_code(folder: Path) -> Path:
    """Copy the package, with one line more."""
    copytree(ROOT / "captioner", folder / "captioner", ignore=lambda *_: ["__pycache__"])
    with (folder / "captioner/jobs/pipeline/partition.py").open("a") as file:
        file.write("# changed\n")
    return folder


def wait_for(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + GIVE_UP_SECONDS
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_workers_that_differ_or_cannot_see_the_images_have_no_part_in_a_run(
    tmp_path: Path, tiny_checkpoint: Path, start: Start
) -> None:
    photos, file = write_photographs(tmp_path / "photos", 40), tmp_path / "scheduler.json"
    out, model = tmp_path / "out", copytree(tiny_checkpoint, tmp_path / "model")
    other = copytree(model, tmp_path / "other")
    (other / "vocabulary.txt").write_text(
        (other / "vocabulary.txt").read_text().replace("dog", "cow")
    )
    dask = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file]
    dask += ["--nthreads", 1, "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--name"]

    with mounts_or_skip():
        start(
            *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--scheduler-file", file),
            *("--protocol", "tls", "--host", "127.0.0.1", "--port", 0, "--no-dashboard"),
        )
        wait_for(file.exists)
        start(*dask, "code", root=other_code(tmp_path / "code"))
        start(*dask, "weights", before=f"mount --bind {other} {model}")
        start(*dask, "blind", before=f"mount -t tmpfs none {photos}")
        job = ("run", photos, "--out", out, "--checkpoint", model, "--scheduler", file)
        run = start(*command(*job, "--partition-size", 4, "--wait-for-workers", GIVE_UP_SECONDS))
        log = tmp_path / "4.log"
        wait_for(lambda: log.read_text().count("refused: ") >= 3 or run.poll() is not None)
        assert not list(out.glob("captions/*")) and run.poll() is None

        good = start(*dask, "good")  # joins late
        wait_for(lambda: bool(list(out.glob("captions/*"))))
        good.kill()  # so that no worker is left
        start(*dask, "better")
        assert run.wait(GIVE_UP_SECONDS) == 0, log.read_text()

    said = log.read_text()
    assert "not encrypted" not in said
    for reason in ("the code of captioner differs", "its captioner is model@", "it cannot read /"):
        assert said.count(reason) == 1, said
    assert statuses(out) == {"ok": 40}
    assert len(set(read_table(out)["captioner"].to_pylist())) == 1
    (events,) = out.glob("runs/*/events.jsonl")
    kinds = [json.loads(line)["event"] for line in events.read_text().splitlines()]
    assert kinds.count("worker_refused") == 3


def test_a_worker_differs_by_what_it_has_or_lacks() -> None:
    here = {"python": "3.12", "packages": {"torch": "2.12", "s3fs": None, "rawpy": None},
            "sources": "a"}  # fmt: skip
    assert difference(here, here) is None
    assert difference({**here, "packages": {"torch": "2.12", "s3fs": "1"}}, here) is None
    assert "Python 3.11, but 3.12 here" in str(difference({**here, "python": "3.11"}, here))
    raw = difference({**here, "packages": {"torch": "2.12", "rawpy": "1"}}, here)
    assert raw == "rawpy 1, but is missing here: install the same on both"
    older = difference({**here, "packages": {"torch": "2.6"}}, here)
    assert older == "torch 2.6, but 2.12 here: install the same on both"
    assert "torch is missing" in str(difference({**here, "packages": {}}, here))
    assert "captioner is missing" in str(difference({**here, "sources": None}, here))
    assert "code" in str(difference({**here, "sources": "b"}, here))


def test_the_versions_of_all_packages_that_workers_use_are_compared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    used = [*project["dependencies"], *(line for name in extras for line in extras[name]
            if name not in ("train", "demo", "test", "dev"))]  # fmt: skip
    names = {line.partition(">=")[0].partition("[")[0] for line in used} - {"captioner"}
    of_the_driver = {"pandas", "psutil", "tqdm", "tornado", "universal_pathlib", "jinja2", "shtab"}
    assert names - of_the_driver - {"cryptography"} <= set(PACKAGES), "add them to PACKAGES"


def test_a_run_without_workers_ends_and_says_why(tiny_checkpoint: Path) -> None:
    with LocalCluster(
        n_workers=0, processes=False, protocol="inproc", dashboard_address=":0"
    ) as cluster, Client(cluster) as client:  # fmt: skip
        told = []
        workers = Workers(client, 0.8, lambda event, line, **_: told.append((event, line)))
        with pytest.raises(TemporaryError, match=r"no worker is connected to .*waited 0\.8 s"):
            workers.wait()
        ((event, line),) = told
        assert event == "no_worker" and "waiting for up to 0.8 s" in line


def test_a_worker_that_pauses_is_not_waited_for_without_end(tiny_checkpoint: Path) -> None:
    options = CaptionerOptions(str(tiny_checkpoint))
    memory = {"distributed.worker.memory.pause": 1e-9, "distributed.worker.memory.terminate": False}
    with dask.config.set(memory), LocalCluster(
        n_workers=1, processes=False, protocol="inproc", dashboard_address=":0"
    ) as cluster, Client(cluster) as client:  # fmt: skip
        wait_for(lambda: cluster.workers[0].status.name == "paused")
        workers = Workers(client, 0.8, not_told, Wanted(options, "tiny@0"))
        with pytest.raises(TemporaryError, match="Dask has paused 1 worker for"):
            workers.wait()


def test_a_worker_with_another_captioner_is_refused_and_named(
    one_worker: str, tiny_checkpoint: Path
) -> None:
    told = []
    with Client(one_worker) as client:
        for checkpoint, reason in ((tiny_checkpoint, "tiny@"), ("/no/model", "no checkpoint")):
            wanted = Wanted(CaptionerOptions(str(checkpoint)), "other@0")
            workers = Workers(client, 5, lambda event, line, **_: told.append(line), wanted)
            with pytest.raises(TemporaryError, match=f"the only worker is refused: .*{reason}"):
                workers.wait()
            assert told[0].startswith("worker inproc://") and reason in told[0]
            told.clear()
