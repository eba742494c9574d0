"""The READMEs: every block of shell commands runs as it stands, in a folder that has its files."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from captioner import Captioner
from tests.support.chat import Chat
from tests.support.commands import GIVE_UP_SECONDS, captioner, environment
from tests.support.hf_models import speaking_blip
from tests.support.photographs import photograph, write_photographs
from tests.support.rows import write_judgements
from tests.support.servers import S3Server
from tests.test_readme import blocks

OURS = re.compile(r"^(pip|make|\.venv/bin/\S+) .*\n", re.MULTILINE)  # what CI does anyway
OLLAMA = "http://localhost:11434/v1"
COMMAND = f"""#!{sys.executable}
import os, re, signal, subprocess, sys, urllib.request
command = [sys.executable, "-m", "captioner.jobs", *sys.argv[1:]]
if sys.argv[1] == "train":  # a minute of training instead of hours, without a download
    command += ["--encoder", "mobilenet_v3_small", "--encoder-weights", "mobilenet.pth"]
    command += ["--decoder-epochs", "1", "--finetune-epochs", "1", "--batch-size", "3"]
if sys.argv[1] in ("run", "plan"):  # each worker takes seconds to start
    command += ["--workers", "1"]
if sys.argv[1] == "review" and len(sys.argv) == 3:  # until someone ends it
    review = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = next(found[0] for line in review.stdout if (found := re.search("http://[^ ]+", line)))
    assert b"<main" in urllib.request.urlopen(url.strip()).read()
    review.send_signal(signal.SIGINT)
    raise SystemExit(review.wait())
os.execv(sys.executable, command)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    done = captioner("run", "photos", "--out", "captions-of-photos", "--embeddings", cwd=folder)
    assert done.returncode == 0, done.stderr
    write_judgements(folder / "captions-of-photos", 60)
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
    block: str, files: Path, tmp_path: Path, s3_server: S3Server, chat: Chat
) -> None:
    commands = OURS.sub("", block).replace(OLLAMA, chat.url)
    if not commands.strip():
        pytest.skip("it sets up or tests this repository")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    if "s3://bucket" in commands:
        s3_server.bucket({"photos/1.jpg": photograph(1)}, name="bucket")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={
            **environment(AWS_ENDPOINT_URL=s3_server.endpoint, BROWSER="true"),
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=GIVE_UP_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
