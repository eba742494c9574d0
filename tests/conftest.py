"""The fixtures of tests/support, marks by fixture, and one thread a process."""

import os

import pytest

pytest_plugins = [
    "tests.support.hf_models",
    "tests.support.models",
    "tests.support.pages",
    "tests.support.chat",
    "tests.support.clusters",
    "tests.support.servers",
    "tests.support.stores",
    "tests.support.tables",
    "tests.support.unreliable",
]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads wait for each other over tiny tensors

MARKS = {"forkserver": "cluster", "one_worker": "cluster", "s3_server": "s3"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests whose fixtures start a Dask cluster or an S3 server."""
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])
