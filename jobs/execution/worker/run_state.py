"""The state that a worker process keeps from one task of a run to the next."""

import os
import sys
import threading
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.answers import NoAnswers
from captioner.jobs.pipeline.answers import Answers
from captioner.jobs.pipeline.known_captions import KnownCaptions
from captioner.jobs.pipeline.settings import WorkerSettings
from captioner.jobs.storage.filesystems import configure
from captioner.jobs.table.layout import RunFolder
from captioner.options import CaptionerOptions, server_from_environment

if TYPE_CHECKING:
    from captioner.captioner import Captioner

GPU_PROCESS = "CAPTIONER_GPU_PROCESS"  # the variable with its folder, on workers that have one
ONE_AT_A_TIME = threading.Lock()  # held by whoever uses the state


class RunState:
    """The captioner and the index of a run in this process, and its storage options."""

    def __init__(self, settings: WorkerSettings) -> None:
        configure(settings.storage_options, settings.access_rules)
        self._settings = settings
        self._known: KnownCaptions | None = None
        self._answers: Answers | None = None

    @cached_property
    def captioner(self) -> "Captioner":
        """The captioner, loaded on first use; CaptionerError if that fails."""
        return load_captioner(self._settings.captioner)

    def known_captions(self, run: RunFolder) -> KnownCaptions:
        """Return the captions that images can reuse, as of now."""
        self._known = self._known or KnownCaptions(run, self.captioner.identity)
        self._known.refresh()
        return self._known

    def answers(self, run: RunFolder) -> Answers | NoAnswers:
        """Return the paid answers that a task can use."""
        if not self._settings.captioner.asks_server:
            return NoAnswers()
        self._answers = self._answers or Answers(run, self.captioner.identity)
        self._answers.begin()
        return self._answers


_states: dict[str, RunState] = {}  # one at a time, because a model takes much memory


def state_of(run_id: str, settings: WorkerSettings) -> RunState:
    """Return the state of a run in this process, after dropping that of any other run."""
    if run_id not in _states:
        _states.clear()
        _states[run_id] = RunState(settings)
    return _states[run_id]


def load_captioner(options: CaptionerOptions) -> "Captioner":
    """Load the captioner of a job; this may import torch.

    A worker that has a GPU process lets it search.

    From here on, what codecs write to stderr is left out: it names no image.
    """
    from captioner.allocator import keep_freed_memory
    from captioner.image.silence import silence_codecs
    from captioner.loading import open_captioner

    silence_codecs()
    keep_freed_memory()
    _use_threads()
    if options.asks_server and options.api_key is None:  # it is not sent in the clear
        options = replace(options, api_key=server_from_environment()["api_key"])
    gpu = os.environ.get(GPU_PROCESS)
    return open_captioner(options, Path(gpu) if gpu else None)


def _use_threads() -> None:
    """Let PyTorch use as many threads as it would if it were imported now: it may have been."""
    threads, torch = os.environ.get("OMP_NUM_THREADS"), sys.modules.get("torch")
    if threads and torch:
        torch.set_num_threads(int(threads))
