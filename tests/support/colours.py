"""Pictures of one colour, with captions that name it, and a training on them that is fast."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.training.config import TrainConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


def write_dataset(folder: Path, images: int) -> None:
    """Write pictures of one colour each, with captions that name it."""
    folder.mkdir()
    random = np.random.default_rng(images)
    lines = []
    for number in range(images):
        colour = list(COLOURS)[number % 3]
        pixels = np.clip(random.normal(COLOURS[colour], 20, (48, 64, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")
        texts = [f"a {colour} wall", f"this is a very {colour} wall"]
        lines.append(json.dumps({"image": f"{number}.jpg", "captions": texts}))
    (folder / "captions.jsonl").write_text("\n".join(lines))


def colour_training(data: Path) -> TrainConfig:
    """Write data sets into a folder; return a training that learns to name colours."""
    write_dataset(data / "train", 48)
    write_dataset(data / "val", 12)
    return TrainConfig(
        images=(str(data / "train"),),
        captions=(str(data / "train" / "captions.jsonl"),),
        val_images=(str(data / "val"),),
        val_captions=(str(data / "val" / "captions.jsonl"),),
        out=str(data / "model"),
        device="cpu",
        encoder="squeezenet1_1",
        image_size=64,
        hidden=32,
        heads=4,
        min_count=1,
        batch_size=8,
        decoder_epochs=20,
        finetune_epochs=2,
        learning_rate=1e-2,
        ema_decay=0.9,
        patience=100,
    )


def stop_after(epochs: int, config: TrainConfig) -> None:
    """Train until `epochs` epochs are complete, then stop as Ctrl-C does."""
    from captioner.training import train, trainer  # with torch, for which few tests have use

    save, saved = trainer.Trainer._save_state, []

    def save_then_stop(self: trainer.Trainer) -> None:
        save(self)
        saved.append(1)
        if len(saved) == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "_save_state", save_then_stop)
        train.train(config)
