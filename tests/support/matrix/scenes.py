"""The scenes of the fault matrix: where the images and OUT lie, and who runs the tasks."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import fsspec

from tests.support.matrix.cluster import DaskCluster
from tests.support.matrix.faulty_proxy import FaultyProxy
from tests.support.matrix.oracle import Oracle
from tests.support.matrix.scene import MARK, Scene, picture_file
from tests.support.models import calibrate_tiny_checkpoint, make_tiny_checkpoint
from tests.support.servers import CREDENTIALS, S3Server, moto_server

DISK = "24m"
LATENCY = 0.05  # seconds
# In one precision, so that all captioners are the same, on small files, each soon committed.
OPTIONS = ("--partition-size", 4, "--precision", "float32")
SECOND = """
[second]
checkpoint = "{checkpoint}"
beam_size = 7
redo_below = 0.5
partition_size = 4
"""


@dataclass
class Stage:
    """What all scenes share: the pictures, the captioner, the servers and the right rows."""

    folder: Path
    images: int
    s3: S3Server
    http_port: int
    oracle: Any = None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "tiny"

    @property
    def second_job(self) -> Path:
        return self.folder / "second.toml"

    @property
    def photos(self) -> Path:
        return self.folder / "pictures"

    def files(self) -> Mapping[str, bytes]:
        """Return the files of the images by name."""
        return {f"{number:03d}.jpg": picture_file(number) for number in range(self.images)}


@contextmanager
def stage(folder: Path, images: int) -> Iterator[Stage]:
    """Start the servers, and caption all pictures without faults."""
    os.environ.update(CREDENTIALS)
    with moto_server() as s3, _photo_server(folder / "pictures") as port:
        shared = Stage(folder, images, s3, port)
        calibrate_tiny_checkpoint(make_tiny_checkpoint(shared.checkpoint))
        shared.second_job.write_text(SECOND.format(checkpoint=shared.checkpoint))
        shared.photos.mkdir()
        for number in range(2 * images):
            (shared.photos / f"{number:03d}.jpg").write_bytes(picture_file(number))
        shared.oracle = Oracle(2 * images, _right(shared), _right(shared, is_second=True))
        yield shared


def _right(shared: Stage, *, is_second: bool = False) -> Path:
    with ExitStack() as stack:
        folder = shared.folder / f"right {is_second}"
        setting = Setting(shared, "right", folder, Random(0), stack)
        more = ("--config", shared.second_job) if is_second else ()
        options = ("--partition-size", 100, *more)
        scene = setting.scene([shared.photos], folder / "out", *options)
        scene.variables = {"FAULTS_SLOW_SECONDS": "0"}
        assert scene.command(*scene.run_line()) == 0, scene.log.read_text()
        return Path(scene.out, "captions")


@contextmanager
def _photo_server(folder: Path) -> Iterator[int]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@dataclass
class Setting:
    """Where a scene plays; what it opens is closed with the `stack`."""

    shared: Stage
    name: str
    folder: Path
    dice: Random
    stack: ExitStack

    def scene(self, source: list[object], out: object, *options: object) -> Scene:
        """Return a scene whose OUT is a folder, and that has nothing that fails yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        pictures = [[number] for number in range(self.shared.images)]
        options = ("--checkpoint", self.shared.checkpoint, *OPTIONS, *options)
        options += () if "--scheduler" in options else ("--workers", 2)
        files = fsspec.filesystem("file")
        return Scene(self.name, self.folder, self.dice, source, str(out), options, files, pictures)

    def photos(self) -> list[object]:
        """Write the images to a folder of the scene; return it as the source."""
        folder = self.folder / "photos"
        folder.mkdir(parents=True)
        for name, content in self.shared.files().items():
            (folder / name).write_bytes(content)
        return [folder]

    def proxy(self, server: str, latency: float) -> FaultyProxy:
        """Start a proxy for a server on this machine."""
        proxy = FaultyProxy(int(server.rpartition(":")[2]), latency)
        self.stack.callback(proxy.close)
        return proxy


@contextmanager
def open_scene(shared: Stage, name: str, folder: Path, dice: Random) -> Iterator[Scene]:
    """Set a scene; close in the end what it has opened."""
    with ExitStack() as stack:
        yield SCENES[name](Setting(shared, name, folder, dice, stack))


def _local(setting: Setting, *options: object) -> Scene:
    source, disk = setting.photos(), setting.folder / "disk"
    is_small = setting.stack.enter_context(_small_disk(disk))
    scene = setting.scene(source, disk / "out", *options)
    scene.disk = disk if is_small else None
    scene.shares_disk = setting.dice.random() < 0.5
    return scene


def _second(setting: Setting) -> Scene:
    scene = _local(setting, "--config", setting.shared.second_job)
    scene.second = True
    return scene


def _cluster(setting: Setting) -> Scene:
    folder = setting.folder
    scene = _local(setting, "--scheduler", folder / "scheduler.json", "--wait-for-workers", 60)
    variables = {**scene.environment(), MARK: "", "TMPDIR": str(folder)}
    scene.cluster = DaskCluster(folder, variables)
    setting.stack.callback(scene.cluster.close)
    return scene


def _out_on_s3(setting: Setting) -> Scene:
    s3 = setting.shared.s3
    scene = setting.scene(setting.photos(), f"{s3.bucket({})}/captions of photos")
    scene.files = fsspec.filesystem("s3", endpoint_url=s3.endpoint)
    scene.proxy = setting.proxy(s3.endpoint, LATENCY / 10)
    scene.variables = _variables(scene.proxy)
    return scene


def _images_on_s3(setting: Setting) -> Scene:
    s3 = setting.shared.s3
    scene = setting.scene([s3.bucket(setting.shared.files())], setting.folder / "out")
    scene.proxy = setting.proxy(s3.endpoint, LATENCY)
    scene.variables = _variables(scene.proxy)
    return scene


def _images_by_http(setting: Setting) -> Scene:
    manifest = setting.folder / "list.txt"
    scene = setting.scene([manifest], setting.folder / "out", "--allow-private")
    scene.proxy = setting.proxy(f":{setting.shared.http_port}", LATENCY)
    names = setting.shared.files()
    manifest.write_text("".join(f"{scene.proxy.url}/{name}\n" for name in names))
    return scene


SCENES: Mapping[str, Callable[[Setting], Scene]] = {
    "folder": _local,
    "second captioner": _second,
    "Dask cluster": _cluster,
    "OUT on S3": _out_on_s3,
    "images on S3": _images_on_s3,
    "images by HTTP": _images_by_http,
}


def _variables(proxy: FaultyProxy) -> Mapping[str, str]:
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": proxy.url}


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system, which root alone may do; otherwise make a folder."""
    folder.mkdir()
    is_mounted = _mounts("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder))
    try:
        yield is_mounted
    finally:
        if is_mounted:
            _mounts("umount", "--lazy", str(folder))


def _mounts(*line: str) -> bool:
    try:
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
