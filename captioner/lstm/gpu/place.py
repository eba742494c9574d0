"""The folder in which the workers of a GPU process find it, or why it was given up."""

import pickle
import secrets
from dataclasses import dataclass
from pathlib import Path

from captioner.errors import CaptionerError

KEY_BYTES = 32


@dataclass(frozen=True)
class Place:
    """The folder of a GPU process, which only this user may enter.

    The process stays at the same address when it is started again.
    """

    folder: Path

    def make(self) -> None:
        """Make the folder, with a new key."""
        self.folder.mkdir(mode=0o700)
        self._key_file.write_bytes(secrets.token_bytes(KEY_BYTES))

    @property
    def address(self) -> str:
        """The address of its Unix socket."""
        return str(self.folder / "socket")

    @property
    def key(self) -> bytes:
        """What both ends of a connection must know."""
        return self._key_file.read_bytes()

    def give_up(self, error: CaptionerError) -> None:
        """Let this error be raised by those who look for the process."""
        unfinished = self._error_file.with_suffix(".unfinished")
        unfinished.write_bytes(pickle.dumps(error))
        unfinished.rename(self._error_file)

    def check(self) -> None:
        """Raise the error with which the process was given up, if it was."""
        if self._error_file.exists():
            raise pickle.loads(self._error_file.read_bytes())

    @property
    def _key_file(self) -> Path:
        return self.folder / "key"

    @property
    def _error_file(self) -> Path:
        return self.folder / "error"
