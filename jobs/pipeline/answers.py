"""Paid answers, in OUT/answers/: a killed run has asked, but its rows are not in the table yet."""

import os
import secrets
import threading
from collections.abc import Iterable

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder


class Answers:
    """The answers in OUT, a file each, for a worker; see captioner.answers.AnswerStore.

    Those are found that were there at the last `begin`, or were kept since. `used` are the keys
    that were read or written since then.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self.used: list[str] = []
        run.storage.make_folder(run.out.answers)

    def begin(self) -> None:
        """List the answers, and forget which were used before."""
        files = self._run.storage.files(self._run.out.answers, "*.json")
        self._known = {path.stem for path in files}
        self.used = []

    def get(self, key: str) -> bytes | None:
        """Return a kept answer."""
        if key not in self._known:
            return None
        try:
            answer = self._run.storage.read_bytes(_path(self._run, key))
        except FileNotFoundError:
            return None
        self._use(key)
        return answer

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer durably."""
        with self._run.storage.work_folder(self._run.scratch) as scratch:
            unfinished = scratch / f"{key}.{secrets.token_hex(4)}.unfinished"
            with unfinished.open("wb") as file:
                file.write(answer)
                file.flush()
                os.fsync(file.fileno())
            self._run.storage.put(unfinished, _path(self._run, key))
        self._use(key)

    def _use(self, key: str) -> None:
        with self._lock:
            self.used.append(key)
            self._known.add(key)


def forget_answers(run: RunFolder, keys: Iterable[str]) -> None:
    """Remove answers whose captions are in the table, or wait to replace rows in it."""
    for key in keys:
        run.storage.remove(_path(run, key))


def _path(run: RunFolder, key: str) -> OutPath:
    return run.out.answers / f"{key}.json"
