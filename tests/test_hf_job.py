"""A model of Hugging Face in a job."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from captioner.jobs import JobConfig, run_job
from captioner.loading import identify
from tests.support.commands import captioner
from tests.support.photographs import write_photographs
from tests.support.tables import read_table


@pytest.mark.parametrize("name", ["speaking_blip", "vit_gpt2"])
def test_every_image_has_a_row_and_a_second_run_has_nothing_to_do(
    job: JobConfig, hf_model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    write_photographs(tmp_path / "photos", 12)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    checkpoint = f"hf:{hf_model(name)}"
    job = replace(job, checkpoint=checkpoint, beam_size=2, max_characters=40, batch_size=None)
    assert run_job(job).images == 13
    rows = read_table(tmp_path / "out").to_pylist()
    assert len(rows) == 13
    assert {row["captioner"] for row in rows} == {identify(job.captioner)}
    for row in rows:
        if row["status"] == "ok":
            is_cut = row["log_prob"] is None  # a babbler's caption may be too long
            assert row["caption"] and is_cut == (row["token_log_probs"] is None)
            assert not is_cut or name == "vit_gpt2"
        else:
            is_bad = row["image_uri"].endswith("bad.jpg")
            assert row["status"] == ("unreadable" if is_bad else "rejected")
            assert is_bad or name != "speaking_blip"
    assert run_job(job).images == 0


@pytest.mark.slow
def test_a_few_images_are_captioned_without_a_word_of_transformers(
    hf_model: Callable[[str], Path], tmp_path: Path
) -> None:
    photos = write_photographs(tmp_path / "photos", 2)
    checkpoint = f"hf:{hf_model('speaking_blip')}"
    result = captioner("caption", photos, "--checkpoint", checkpoint, "--device", "cpu")
    assert result.stdout.lower().count("a dog runs on the grass") == 2
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
def test_a_model_that_is_missing_is_a_usage_error(tmp_path: Path) -> None:
    photos = write_photographs(tmp_path / "photos", 1)
    result = captioner("caption", photos, "--checkpoint", f"hf:{tmp_path}")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "no config.json" in result.stderr
