"""Other captioners on the same photographs, from files to captions, each on one core or GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.support.speed.figures import Row, in_turn, ratio, seconds_of
from tests.support.speed.subject import Subject
from tests.support.speed.transformers_peers import random_blip, random_vit_gpt2
from tests.support.speed.usual import UsualScript

OURS = "captioner"
IMAGES = {"cpu": (64, 32, 4), "cuda": (512, 64, 128)}  # of a round: fewer for slow peers


def time_peers(subject: Subject, paths: Sequence[Path], rounds: int) -> list[Row]:
    """Return the images/s of each captioner, and how many times slower than ours it is.

    Those of transformers compute in our precision. One round before warms them all up.
    """
    device, dtype = subject.captioner.device, subject.dtype
    usual = UsualScript(subject.checkpoint, device)
    blip, vit_gpt2 = random_blip(device, dtype), random_vit_gpt2(device, dtype)
    many, some, few = IMAGES[device.type]
    peers: dict[str, tuple[Callable[[Sequence[Path]], object], int]] = {
        OURS: (subject.captioner.caption, many),
        "usual script, one image at a time": (usual.one_at_a_time, some),
        "usual script, CNN in batches of 32": (usual.in_batches, some),
        "ViT-GPT2, random weights (1)": (vit_gpt2.caption, few),
        "BLIP-base, random weights (1)": (blip.caption, few),
    }
    things = {
        name: partial(_speed, subject, caption, paths[:images])
        for name, (caption, images) in peers.items()
    }
    in_turn(things, 1)
    speeds = in_turn(things, rounds)
    return [Row(name, "images/s", each, _ratios(name, speeds)) for name, each in speeds.items()]


def _speed(
    subject: Subject, caption: Callable[[Sequence[Path]], object], paths: Sequence[Path]
) -> float:
    return len(paths) / seconds_of(partial(caption, paths), subject.finish)


def _ratios(name: str, speeds: dict[str, list[float]]) -> dict[str, float]:
    if name == OURS:
        return {}
    return {"captioner / this": ratio(speeds[OURS], speeds[name])}
