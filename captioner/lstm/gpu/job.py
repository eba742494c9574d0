"""What a GPU process is started with. Importing this does not import torch."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from captioner.lstm.gpu.place import Place
from captioner.options import CaptionerOptions


@dataclass(frozen=True)
class GpuJob:
    """A captioner, the place where its process is found, and the most images in a batch.

    Without `most`, the process chooses it. `environment` has variables, such as the one
    that says which GPU the process may use.
    """

    options: CaptionerOptions
    place: Place
    most: int | None
    environment: Mapping[str, str]

    def run(self, owner: Connection) -> None:
        """Be the GPU process: see `run_gpu_process`."""
        for number in (signal.SIGINT, signal.SIGTERM):  # which all processes of a run may get
            signal.signal(number, signal.SIG_IGN)  # the owner decides
        os.environ.update(self.environment)  # before a library reads it
        from captioner.lstm.gpu.process import run_gpu_process

        run_gpu_process(self, owner)
