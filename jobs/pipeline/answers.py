"""Paid answers, in OUT/answers/: a killed run has asked, but its rows are not in the table yet."""

import os
import secrets
import threading
from collections.abc import Iterable, Sequence

from captioner.jobs.storage.backends.paths import OutPath
from captioner.jobs.table.layout import RunFolder


class Answers:
    """The answers of a captioner in OUT, a file each; see captioner.answers.AnswerStore.

    Those are found that were there at the last `begin`, or were kept since. `used` are the names
    of those that were read or written since then.
    """

    def __init__(self, run: RunFolder, captioner: str) -> None:
        self._run, self._captioner = run, captioner
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self.used: list[str] = []
        run.storage.make_folder(run.out.answers)

    def begin(self) -> None:
        """List the answers, and forget which were used before."""
        self._known = {path.stem for path in _files(self._run, self._captioner)}
        self.used = []

    def get(self, key: str) -> bytes | None:
        """Return a kept answer."""
        name = self._name(key)
        if name not in self._known:
            return None
        try:
            answer = self._run.storage.read_bytes(_path(self._run, name))
        except FileNotFoundError:
            return None
        self._use(name)
        return answer

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer durably."""
        name = self._name(key)
        with self._run.storage.work_folder(self._run.scratch) as scratch:
            unfinished = scratch / f"{name}.{secrets.token_hex(4)}.unfinished"
            with unfinished.open("wb") as file:
                file.write(answer)
                file.flush()
                os.fsync(file.fileno())
            self._run.storage.put(unfinished, _path(self._run, name))
        self._use(name)

    def _name(self, key: str) -> str:
        return f"{_prefix(self._captioner)}{key}"

    def _use(self, name: str) -> None:
        with self._lock:
            self.used.append(name)
            self._known.add(name)


def forget_answers(run: RunFolder, names: Iterable[str]) -> None:
    """Remove answers whose captions are in the table, or wait to replace rows in it."""
    for name in names:
        run.storage.remove(_path(run, name))


def forget_all_answers(run: RunFolder, captioner: str) -> None:
    """Remove all answers of a captioner, also those that killed runs left behind."""
    for path in _files(run, captioner):
        run.storage.remove(path)


def _files(run: RunFolder, captioner: str) -> Sequence[OutPath]:
    return run.storage.files(run.out.answers, f"{_prefix(captioner)}*.json")


def _prefix(captioner: str) -> str:
    """Return the beginning of the names of a captioner's answers, from its fingerprint."""
    return f"{captioner.rpartition('@')[2]}-"


def _path(run: RunFolder, name: str) -> OutPath:
    return run.out.answers / f"{name}.json"
