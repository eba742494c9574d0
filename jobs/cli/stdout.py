"""Standard output that cannot be written to, as on a full disk."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

from captioner.jobs.errors import JobError

T = TypeVar("T")


@contextmanager
def checked_stdout() -> Iterator[None]:
    """Raise JobError when what is printed cannot be written, while the context lasts."""
    if sys.stdout is None:  # closed by the shell
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
            yield
        return
    with redirect_stdout(cast(TextIO, _Checked(sys.stdout))):
        yield


class _Checked:
    """A stream whose failures, but for a broken pipe, are errors of the job, once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._tried(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._tried(self._stream.flush)

    def _tried(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except BrokenPipeError:
            raise
        except OSError as error:
            # Nobody can read the rest, and Python would try to write it when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise JobError(
                f"cannot write to standard output: {error.strerror}; redirect it elsewhere"
            ) from error
