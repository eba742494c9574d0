"""What several tests need: an untrained model, photographs, workers, stores, a table to read."""

import io
import itertools
import multiprocessing
import multiprocessing.forkserver
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from PIL import Image

from jobs import JobConfig

pytest_plugins = ["store_fixtures"]

WORDS = ("a", "dog", "cat", "man", "runs", "sits", "on", "in", "the", "grass", "red", "coat")
TESTS = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(TESTS / "faults"), str(TESTS.parent)])
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads wait for each other over tiny tensors


def make_tiny_checkpoint(directory: Path) -> Path:
    """Write a model directory with random weights, small and fast; its captions differ."""
    import torch  # here, so that the tests which need none start at once

    from captioner.checkpoint import save_checkpoint
    from captioner.model import CaptionModel, ModelConfig
    from captioner.vocabulary import SPECIAL_WORDS, Vocabulary

    torch.manual_seed(0)
    config = ModelConfig(encoder="mobilenet_v3_small", image_size=64, hidden=32, heads=4)
    vocabulary = Vocabulary(SPECIAL_WORDS + WORDS)
    model = CaptionModel(config, len(vocabulary))
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # untrained statistics would let nothing of an image through
    pictures = (Image.open(io.BytesIO(photograph(number))) for number in range(12))
    pixels = np.stack([np.asarray(picture.resize((64, 64))) for picture in pictures])
    with torch.no_grad():
        model.encoder.train()(torch.from_numpy(pixels))
    save_checkpoint(directory, model, vocabulary)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with random weights, small and fast."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def calibrated_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a calibration: some captions are surer than 0.5, some less.

    By its calibration a confidence of 0.5 has a precision of 0.85, for 23% of the captions; the
    best precision is 0.9.
    """
    from captioner import Captioner
    from captioner.calibration import SIGNALS, Calibration, OperatingPoint, save_calibration

    directory = tmp_path_factory.mktemp("models") / "calibrated"
    shutil.copytree(tiny_checkpoint, directory)
    photos = [photograph(number) for number in range(12)]
    captions = Captioner.load(directory, device="cpu").caption(photos)
    centre = float(np.mean([caption.log_prob for caption in captions]))
    weights = [float(signal == "sum_log_prob") for signal in SIGNALS]
    count = len(SIGNALS)
    points = [OperatingPoint(0.99, 0.05, 0.9), OperatingPoint(0.5, 0.23, 0.85)]
    calibration = Calibration(
        "good", "here", list(SIGNALS), [centre] * count, [10.0] * count, weights, 0.0,
        [*points, OperatingPoint(0.0, 1.0, 0.4)],
    )  # fmt: skip
    save_calibration(directory, calibration)
    return directory


@pytest.fixture(scope="session")
def forkserver() -> None:
    """The process that workers are forked from: it has imported torch, which takes them seconds.

    Harmful images (faults/) harm them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        multiprocessing.set_forkserver_preload(
            ["captioner.captioner", "distributed", "jobs.compact", "jobs.worker"]
        )
        multiprocessing.forkserver.ensure_running()


@contextmanager
def two_workers(**variables: str) -> Iterator[str]:
    """The address of a Dask cluster with these variables in its workers' environment.

    It needs the fixture `forkserver`.
    """
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=100,
            env=variables,
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def scheduler(forkserver: None) -> Iterator[str]:
    """The address of a Dask cluster of two workers."""
    with two_workers() as address:
        yield address


@pytest.fixture(scope="module")
def one_worker() -> Iterator[str]:
    """A cluster of one thread of this process, which tests can patch; tasks come in order."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        protocol="inproc",
    ) as cluster:
        yield cluster.scheduler_address


@dataclass(frozen=True)
class S3Server:
    """An S3 server, and the storage options by which it is reached; buckets are new ones."""

    endpoint: str

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        return {"s3": {"endpoint_url": self.endpoint}}

    def bucket(self, files: Mapping[str, bytes]) -> str:
        """The URL of a bucket with these objects."""
        import s3fs

        fs = s3fs.S3FileSystem(endpoint_url=self.endpoint)
        name = f"bucket-{next(_BUCKETS)}"
        fs.call_s3("create_bucket", Bucket=name)
        for key, data in files.items():
            fs.call_s3("put_object", Bucket=name, Key=key, Body=data)
        return f"s3://{name}"


_BUCKETS = itertools.count()
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """A server of moto, which is a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", "0"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        address = next(filter(None, (re.search("http://[0-9.:]+", x) for x in process.stderr)))
        log = threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True)
        log.start()  # or it would fill the pipe
        try:
            yield S3Server(address[0])
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server, with credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch, moto_server() as server:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The S3 server, with its options set in this process."""
    from jobs.storage import configure

    configure(s3_server.options)
    yield s3_server
    configure({})


POLL_SECONDS = 0.01  # that a server takes to notice that it is to end


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder, the answer of a number (/status/403.jpg), and silence (/hang/).

    What is below /private/ is for requests with a header Authorization.
    """

    def do_GET(self) -> None:
        if status := re.fullmatch(r"/status/(\d+)\.jpg", self.path):
            self.send_error(int(status[1]))
        elif self.path.startswith("/private/") and "Authorization" not in self.headers:
            self.send_error(401)
        elif self.path.startswith("/hang/"):
            self.server.stopped.wait()  # type: ignore[attr-defined]
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_request(self, *_arguments: object) -> None:
        self.server.requested.append(self.path)  # type: ignore[attr-defined]

    def log_message(self, *_arguments: object) -> None:
        pass


@dataclass(frozen=True)
class HttpServer:
    """A server of the files in `folder`; `requested` are the paths that it was asked for."""

    url: str
    folder: Path
    requested: list[str]


@pytest.fixture
def http_server(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(_Handler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requested = []  # type: ignore[attr-defined]
        server.stopped = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield HttpServer(url, folder, server.requested)  # type: ignore[attr-defined]
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()


@pytest.fixture
def job(tmp_path: Path, scheduler: str, tiny_checkpoint: Path) -> JobConfig:
    """Captions tmp_path/photos into tmp_path/out, on two workers that are there already."""
    return JobConfig(
        source=tmp_path / "photos",
        out=tmp_path / "out",
        checkpoint=tiny_checkpoint,
        scheduler=scheduler,
        batch_size=8,
        quiet=True,
    )


def photograph(number: int) -> bytes:
    """A small JPEG file; each number has its own picture."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(file, "JPEG")
    return file.getvalue()


def write_photographs(folder: Path, count: int, harm: bytes = b"") -> Path:
    """Fill a folder with 000.jpg and so on, as far as they are missing.

    `harm` (see faults/) goes before each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.jpg"
        if not path.exists():
            path.write_bytes(harm + photograph(number))
    return folder


def command(*arguments: object) -> list[str]:
    """The command line of `captioner` with these arguments."""
    return [sys.executable, "-m", "jobs", *map(str, arguments)]


def environment(**variables: str) -> Mapping[str, str]:
    """Of a subprocess: harmful images harm it."""
    return os.environ | {"PYTHONPATH": PYTHONPATH} | variables


def captioner(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command `captioner` to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), cwd=cwd, capture_output=True, text=True, check=False
    )


def read_table(out: Path) -> pa.Table:
    """The caption table in OUT, sorted by image."""
    return ds.dataset(out / "captions").to_table().sort_by("image_uri")


def statuses(out: Path) -> dict[str, int]:
    """The number of rows by status."""
    return dict(Counter(read_table(out)["status"].to_pylist()))


def image_names(out: Path) -> list[str]:
    """The file names of all rows' images, sorted."""
    return [Path(uri).name for uri in read_table(out)["image_uri"].to_pylist()]
