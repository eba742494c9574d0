"""Answers of a server that were paid for, kept until their captions are safe."""

from typing import Protocol


class AnswerStore(Protocol):
    """A place for answers, by a key of the question. Thread-safe."""

    def get(self, key: str) -> bytes | None:
        """Return the answer to a question that was asked before, if it is known."""

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer durably; raise OSError if that fails."""


class NoAnswers:
    """An AnswerStore that keeps nothing."""

    used = ()

    def get(self, key: str) -> bytes | None:
        return None

    def put(self, key: str, answer: bytes) -> None:
        pass
