"""The processes of torchrun train one model together, resume, and end together."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from captioner import Captioner
from captioner.training.config import TrainConfig
from captioner.training.train import train

pytestmark = pytest.mark.slow
SECONDS = 120  # more than any of these trainings takes


@pytest.fixture(scope="module")
def config(config: TrainConfig) -> TrainConfig:
    """Return a training on images with one or two captions; the first stage draws no numbers."""
    path = Path(config.captions[0])
    images = [json.loads(line) for line in path.read_text().splitlines()]
    for image in images[::3]:
        del image["captions"][0]
    path.write_text("\n".join(map(json.dumps, images)))
    return replace(
        config,
        precision="float32",
        dropout=0.0,
        decoder_epochs=8,
        finetune_epochs=1,
        self_critical_epochs=1,
    )


@pytest.fixture(scope="module")
def through(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return a training that two processes have run from its beginning to its end."""
    done = replace(config, out=str(tmp_path_factory.mktemp("two") / "through"))
    run_to_its_end(done)
    return done


@contextmanager
def torchrun(config: TrainConfig) -> Iterator[subprocess.Popen[str]]:
    """Start two processes that train; end them with the context."""
    recipe = Path(f"{config.out}.toml")
    values = {name: value for name, value in asdict(config).items() if value not in (None, ())}
    recipe.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*launcher, "-m", "captioner.jobs", "train", "--config", str(recipe)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as run:
        try:
            yield run
        finally:
            run.terminate()


def run_to_its_end(config: TrainConfig) -> None:
    with torchrun(config) as run:
        out, err = run.communicate(timeout=SECONDS)
    assert run.returncode == 0, err
    assert out == f"trained: {config.out}\n"


def log_of(config: TrainConfig) -> list[dict[str, Any]]:
    path = Path(config.out, "training_log.jsonl")
    return [json.loads(line) for line in path.open()] if path.is_file() else []


@pytest.mark.usefixtures("rough_presence")
def test_two_processes_train_as_one_does(
    config: TrainConfig, through: TrainConfig, tmp_path: Path
) -> None:
    alone = replace(config, out=str(tmp_path / "alone"), finetune_epochs=0, self_critical_epochs=0)
    train(alone)
    assert [entry["stage"] for entry in log_of(through)[8:]] == ["finetune", "self_critical"]
    for ours, theirs in zip(log_of(alone), log_of(through)[:8], strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
        assert theirs["cider"] == pytest.approx(ours["cider"], rel=1e-3)
    captioner = Captioner.load(through.out, device="cpu")
    assert captioner.caption(Path(config.val_images[0], "0.jpg")).confidence is not None


def test_a_killed_process_ends_the_other_and_both_resume(
    through: TrainConfig, tmp_path: Path
) -> None:
    out = str(tmp_path / "killed")
    killed = replace(through, out=out, finetune_epochs=0, self_critical_epochs=0)
    with torchrun(killed) as run:
        while not log_of(killed):
            assert run.poll() is None
            time.sleep(0.02)
        processes = psutil.Process(run.pid).children()
        next(each for each in processes if each.environ()["RANK"] == "1").kill()
        run.communicate(timeout=SECONDS)
    assert run.returncode != 0
    assert not any(each.is_running() for each in processes)
    assert len(log_of(killed)) < 8
    run_to_its_end(killed)
    losses = [[entry["loss"] for entry in log_of(each)[:8]] for each in (killed, through)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"learning_rate": 1e20}, "decoder, epoch 1 of 8: the "),
        ({"batch_size": 7}, "a batch of 7 images cannot be divided evenly among 2 processes"),
    ],
)
def test_an_error_of_all_processes_is_said_once(
    config: TrainConfig, tmp_path: Path, changed: dict[str, Any], error: str
) -> None:
    assert said_by(replace(config, out=str(tmp_path / "out"), **changed)).startswith(error)


def test_an_error_of_the_first_process_ends_the_others(config: TrainConfig, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(config.val_images[0], damaged)
    (damaged / "5.jpg").write_bytes(b"")  # only the first process decodes it
    of_damaged = replace(config, out=str(tmp_path / "out"), val_images=(str(damaged),))
    assert said_by(of_damaged).startswith("5.jpg: ")


def said_by(config: TrainConfig) -> str:
    """Return the one error that the processes of a training print."""
    with torchrun(config) as run:
        _, err = run.communicate(timeout=SECONDS)
    assert run.returncode != 0
    start = "captioner: error: "
    (line,) = [line for line in err.splitlines() if line.startswith(start)]
    return line.removeprefix(start)
