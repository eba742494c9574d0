"""The process that fuzzes a target: `python -m tests.support.fuzzing.child TARGET FOLDER SECONDS`.

It works in the current folder, and ends after so many seconds of CPU time. Errors of Python are
findings, and it goes on. Whatever ends the process, takes too long or too much memory, libFuzzer
writes down before it ends.
"""

import hashlib
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path

import atheris

SECONDS = 30  # of an input, at most
MEMORY = 1024  # MiB of the process, at most
LONGEST = 50_001  # bytes of an input
# Of these, each line counts as covered or not; codecs in C are opaque.
INSTRUMENTED = ["captioner", "PIL", "fsspec", "tornado", "tarfile", "zipfile", "gzip", "csv"]
CORPUS, FINDINGS, CURRENT = "corpus", "findings", "current"


def main(name: str, folder: Path, seconds: int) -> None:
    with atheris.instrument_imports(include=INSTRUMENTED):
        module = importlib.import_module(f"tests.support.fuzzing.{name}")
        if not any((folder / CORPUS).iterdir()):
            for seed in module.seeds():
                (folder / CORPUS / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
        options = [
            f"-timeout={SECONDS}",
            f"-rss_limit_mb={MEMORY}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={folder / FINDINGS}/",
            "-print_final_stats=1",
            "-entropic_scale_per_exec_time=1",
        ]
        with module.target(Path.cwd()) as run:
            fuzzed = _guarded(run, folder, seconds)
            atheris.Setup([sys.argv[0], *options, str(folder / CORPUS)], fuzzed)
            atheris.Fuzz()


def _guarded(run: Callable[[bytes], None], folder: Path, seconds: int) -> Callable[[bytes], None]:
    """Return a function that writes down what it is given, and why it is a finding."""
    numbers = count(1)

    def fuzzed(data: bytes) -> None:
        Path(CURRENT).write_bytes(data)
        try:
            run(data)
        except Exception as error:  # noqa: BLE001 (what is looked for)
            _keep(folder / FINDINGS, data, error)
        done = next(numbers)
        if time.process_time() > seconds:
            print(f"Done {done} runs", flush=True)
            os._exit(0)  # atheris may hang as it ends the threads of Arrow

    return fuzzed


def _keep(folder: Path, data: bytes, error: Exception) -> None:
    """Write an input and its traceback, unless another input ended at the same line."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    path = folder / f"error-{hashlib.sha1(repr(places).encode()).hexdigest()[:8]}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
