"""The built wheel carries all that a job needs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.photographs import write_photographs
from tests.support.tables import read_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, because a build writes to the folder of its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests")
    source = shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=ignore)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    return next(folder.glob("captioner-*.whl"))


def test_the_wheel_has_the_packages_the_checkpoint_and_the_type_markers(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    checkpoint = "captioner/checkpoints/flickr8k"
    assert {
        "captioner/py.typed",
        "captioner/jobs/run.py",
        "captioner/schemas/caption_table.py",
        "captioner/jobs/publish/assets/report.html",
        "captioner/jobs/publish/assets/report.css",
        "captioner/jobs/publish/assets/base.css",
    } <= names
    for file in ("config.json", "vocabulary.txt", "model.safetensors", "calibration.json"):
        assert f"{checkpoint}/{file}" in names
    assert f"{checkpoint}/MODEL_CARD.md" in names
    for folder in ("jobs/publish", "jobs/publish/review/page"):
        assets = {f"captioner/{folder}/assets/{path.name}" for path in assets_of(folder)}
        assert assets and assets <= names
    assert not any(name.startswith("tests/") for name in names)


def assets_of(folder: str) -> list[Path]:
    return list((ROOT / folder / "assets").iterdir())


def test_an_installed_wheel_runs_a_job_with_the_bundled_checkpoint(
    wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    options = ["--no-deps", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    write_photographs(tmp_path / "photographs", 2)
    environment = os.environ | {"PYTHONPATH": str(site)}
    where = [sys.executable, "-c", "import captioner, captioner.jobs; print(captioner.__file__)"]
    imported = subprocess.check_output(where, env=environment, cwd=tmp_path, text=True)
    assert imported.startswith(str(site))
    arguments = ("run", "photographs", "--out", "out", "--workers", "1")
    command = [sys.executable, "-m", "captioner.jobs", *arguments]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    table = read_table(tmp_path / "out")
    assert table["status"].to_pylist() == ["ok", "ok"]
    assert table["captioner"][0].as_py().startswith("flickr8k@")
    assert all(0 <= value <= 1 for value in table["confidence"].to_pylist())
