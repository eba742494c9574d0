"""The folder in which the workers of a GPU process find it, or why it was given up."""

import pickle
import secrets
from dataclasses import dataclass
from pathlib import Path

from captioner.errors import CaptionerError, CaptionerUnavailable

KEY_BYTES = 32


@dataclass(frozen=True)
class Place:
    """The folder of a GPU process, which only this user may enter.

    The process stays at the same address when it is started again, but with another key.
    """

    folder: Path

    def make(self) -> None:
        """Make the folder, with a first key; OSError if that fails."""
        self.folder.mkdir(mode=0o700)
        self.renew()

    def renew(self) -> None:
        """Prepare for another process: by the new key, workers see that the former one is over."""
        Path(self.address).unlink(missing_ok=True)  # first: nobody shows the new key to the former
        _write(self._key_file, secrets.token_bytes(KEY_BYTES))

    @property
    def address(self) -> str:
        """The address of its Unix socket."""
        return str(self.folder / "socket")

    @property
    def key(self) -> bytes:
        """What both ends of a connection must know; FileNotFoundError if all is over."""
        return self._key_file.read_bytes()

    def give_up(self, error: CaptionerError) -> None:
        """Let this error be raised by those who look for the process.

        If it cannot be written, they see that there is no key any more.
        """
        try:
            _write(self._error_file, pickle.dumps(error))
        except OSError:
            self._key_file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise the error with which the process was given up, if it was."""
        if self._error_file.exists():
            raise pickle.loads(self._error_file.read_bytes())
        if not self._key_file.exists():
            raise CaptionerUnavailable(
                f"the GPU process in {self.folder} was given up, and why could not be written "
                "there: look at the disk and at the GPU, and run again"
            )

    @property
    def _key_file(self) -> Path:
        return self.folder / "key"

    @property
    def _error_file(self) -> Path:
        return self.folder / "error"


def _write(file: Path, data: bytes) -> None:
    """Write a file that others see complete or not at all."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(data)
    unfinished.rename(file)
