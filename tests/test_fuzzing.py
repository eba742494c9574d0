"""The targets of fuzzing: what their seeds reach ends as it is declared."""

from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize("target", ["images", "manifests", "archives", "review"])
def test_every_seed_of_a_target_ends_as_declared(tmp_path: Path, target: str) -> None:
    module = import_module(f"tests.support.fuzzing.{target}")
    seeds = [*module.seeds()]
    assert len(seeds) > 40
    with module.target(tmp_path) as run:
        for seed in seeds:
            run(seed)
