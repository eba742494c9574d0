"""The fixtures of tests/support, and one thread a process."""

import os

pytest_plugins = [
    "tests.support.models",
    "tests.support.clusters",
    "tests.support.servers",
    "tests.support.stores",
    "tests.support.tables",
]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads wait for each other over tiny tensors
