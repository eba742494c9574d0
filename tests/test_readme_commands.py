"""The READMEs: every block of shell commands runs as it stands, in a folder that has its files."""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed.security import Security

from captioner import Captioner
from captioner.jobs import JobConfig, run_job
from tests.support.chat import Chat
from tests.support.commands import GIVE_UP_SECONDS, environment
from tests.support.hf_models import speaking_blip
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import write_judgements
from tests.support.servers import S3Server
from tests.test_readme import TEXTS, blocks

OURS = re.compile(r"^(pip|make|\.venv/bin/\S+) .*\n", re.MULTILINE)  # what CI does anyway
ROLES = ("scheduler", "worker", "client")
OLLAMA = "http://localhost:11434/v1"
COMMAND = f"""#!{sys.executable}
import os, re, signal, subprocess, sys, urllib.request
command = [sys.executable, "-m", "captioner.jobs", *sys.argv[1:]]
if sys.argv[1] == "train":  # a minute of training instead of hours, without a download
    command += ["--encoder", "mobilenet_v3_small", "--encoder-weights", "mobilenet.pth"]
    command += ["--decoder-epochs", "1", "--finetune-epochs", "1", "--batch-size", "3"]
if sys.argv[1] in ("run", "plan") and "--scheduler" not in sys.argv:  # workers take long to start
    command += ["--scheduler", os.environ["RUNNING"], "--wait-for-workers", "120"]
if sys.argv[1] == "evaluate":
    command += [] if "--reviews" in sys.argv else ["--precision", "float32"]  # as on a scheduler
    os.environ["PATH"] = ""  # so that it does not find Java, which takes long to start
if sys.argv[1] == "review" and len(sys.argv) == 3:  # until someone ends it
    review = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = next(found[0] for line in review.stdout if (found := re.search("http://[^ ]+", line)))
    assert b"<main" in urllib.request.urlopen(url.strip()).read()
    review.send_signal(signal.SIGINT)
    raise SystemExit(review.wait())
os.execv(sys.executable, command)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, store_workers: str) -> Path:
    """Return a folder with everything that the READMEs name, but in the order of a new user."""
    folder = tmp_path_factory.mktemp("readme")
    write_photographs(folder / "photos", 5)
    write_photographs(folder / "scans", 2)
    for number, name in enumerate(("dog.jpg", "beach.jpg")):
        (folder / name).write_bytes(photograph(number))
    for split in ("train", "val", "test"):
        write_photographs(folder / split, 6)
        lines = (
            {"image": f"{n:03d}.jpg", "captions": ["A dog runs on grass."] * 5} for n in range(6)
        )
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for name in ("photos.csv", "list.csv"):
        (folder / name).write_text("image_uri\nphotos/000.jpg\n")
    (folder / "wrong.txt").write_text("photos/001.jpg\n")
    (folder / "last-week").touch()
    os.utime(folder / "last-week", (0, 0))
    _write_captions(folder)
    write_photographs(folder / "site", 1)
    (folder / "site" / "index.html").write_text('<img src="000.jpg">')
    (folder / "bin").mkdir()
    (folder / "bin" / "captioner").write_text(COMMAND)
    (folder / "bin" / "captioner").chmod(0o755)
    speaking_blip(folder / "models" / "blip")
    _write_encoder(folder / "mobilenet.pth")
    photos, out = folder / "photos", folder / "captions-of-photos"
    run_job(JobConfig(photos, out, embeddings=True, scheduler=store_workers, quiet=True))
    write_judgements(out, 60)
    return folder


def _write_captions(folder: Path) -> None:
    """Write photographs and what people say of them: what the bundled model is surest of."""
    write_photographs(folder / "my-photos", 60)
    captions = Captioner.load("flickr8k", device="cpu").caption([photograph(n) for n in range(60)])
    middle = statistics.median(caption.confidence or 0 for caption in captions)
    texts = [each.text if (each.confidence or 0) > middle else "A zebra." for each in captions]
    lines = ({"image": f"{n:03d}.jpg", "captions": [text] * 2} for n, text in enumerate(texts))
    (folder / "my-captions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _write_encoder(path: Path) -> None:
    import torch
    from torchvision.models import mobilenet_v3_small

    torch.save(mobilenet_v3_small().state_dict(), path)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh"))
def test_the_commands_run(
    block: str, files: Path, tmp_path: Path, s3_server: S3Server, store_workers: str, chat: Chat
) -> None:
    commands = OURS.sub("", block).replace(OLLAMA, chat.url)
    if not commands.strip():
        pytest.skip("it sets up or tests this repository")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    if "s3://bucket" in commands:
        s3_server.bucket({"photos/1.jpg": photograph(1)}, name="bucket")
    variables = {"AWS_ENDPOINT_URL": s3_server.endpoint, "RUNNING": store_workers}
    run(commands, tmp_path, **variables, BROWSER="true")


@pytest.mark.slow
def test_the_commands_about_a_cluster_run_on_one(
    files: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    in_readme = re.findall(r"```bash\n(.*?)```", TEXTS["jobs/execution/README.md"], re.DOTALL)
    port = free_port()
    commands, servers = (
        block.replace("/data", str(tmp_path))
        .replace("tls://scheduler:8786", f"tls://127.0.0.1:{port}")
        .replace("8786", str(port))
        for block in in_readme
    )
    for name in ("photos", "bin"):
        shutil.copytree(files / name, tmp_path / name)
    s3_server.bucket({"photos/1.jpg": photograph(1)}, name="bucket")
    variables = {
        **certificates(tmp_path),
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "DASK_SCHEDULER_ADDRESS": f"tls://127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",
    }
    with started(servers, tmp_path, **variables):
        done = run(commands, tmp_path, **variables)
    assert re.findall(r"^captioned +(\d+)|nothing to do", done.stdout, re.MULTILINE) == [
        *("1", "5"),
        "",
    ]
    assert "is not encrypted" not in done.stderr


def run(commands: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run commands of a README in a folder that has their files."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=with_commands(folder, **variables),
        capture_output=True,
        text=True,
        timeout=GIVE_UP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done


@contextmanager
def started(commands: str, folder: Path, **variables: str) -> Iterator[None]:
    """Run each line of commands until the context ends."""
    script = "".join(f"{line} &\n" for line in commands.splitlines()) + "wait"
    with (folder / "servers.log").open("w") as log:
        servers = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=with_commands(folder, **variables),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(servers.pid, signal.SIGTERM)
        servers.wait()


def with_commands(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a shell that finds `captioner` and `dask`."""
    path = f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**environment(**variables), "PATH": path}


def certificates(folder: Path) -> dict[str, str]:
    """Dask's configuration for TLS, as variables, with files in a folder."""
    temporary = Security.temporary()
    variables = {}
    for name in ("ca_file", *(f"{role}_{part}" for role in ROLES for part in ("key", "cert"))):
        path = folder / f"{name}.pem"
        path.write_text(getattr(temporary, f"tls_{name}"))
        key = name.replace("_", "__") if name != "ca_file" else name
        variables[f"DASK_DISTRIBUTED__COMM__TLS__{key.upper()}"] = str(path)
    return variables


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
