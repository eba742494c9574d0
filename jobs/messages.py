"""Messages on stderr: all that `jobs` says to people, or as JSON lines to programs.

Nothing else prints to stderr. `say` logs to the logger `captioner` of the standard library;
`on_stderr` decides how its messages look. A program that runs jobs may add handlers of its own to
that logger: then nothing is written to stderr.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

from tqdm.contrib.logging import logging_redirect_tqdm

TEXT, JSON = FORMATS = ("text", "json")
ERROR = "error"
Details = Mapping[str, Any]
NO_DETAILS: Details = MappingProxyType({})
LOGGER = logging.getLogger("captioner")
_END = b"\0end of stderr\n"
_LINE_BYTES = 65_536
# What moves the cursor, colours, turns or breaks lines, or cannot be encoded; but tabs.
_CONTROL = re.compile(
    "[\x00-\x08\n-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_KIND = re.compile("(?:: | by )(.*)")  # in a reason that has kinds
KINDS = 3  # of a reason that are named
_about: dict[str, str] = {}  # what all messages are about, such as the run


def say(text: str, event: str = "message", details: Details = NO_DETAILS) -> None:
    """Write a message for people; programs also get its event and details, which JSON can hold."""
    LOGGER.info(text, extra={"event": event, "details": details})


def warn(text: str, event: str = "warning", details: Details = NO_DETAILS) -> None:
    """Write a warning for people and programs."""
    LOGGER.warning(text, extra={"event": event, "details": details})


def say_error(text: str, exit_code: int, details: Details = NO_DETAILS) -> None:
    """Write why a command ends with this exit code."""
    LOGGER.error(text, extra={"event": ERROR, "details": {"exit_code": exit_code, **details}})


def note(text: str, event: str, details: Details = NO_DETAILS) -> None:
    """Write a message for programs only."""
    LOGGER.info(text, extra={"event": event, "details": details, "for_people": False})


def printable(text: str) -> str:
    """Return a text on one line that does nothing to a terminal, its control characters escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def how_many(count: int, noun: str) -> str:
    """Format a number of things, as in "1 image" and "1,204 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def summed_up(reasons: Mapping[str, int]) -> str:
    """Format counts by reason, the largest first, with the kinds of a reason together.

    A kind follows ": " or " by ": "900 not opened (.psd 700, .pdf 150, 50 others), 3 hidden".
    """
    groups: dict[str, Counter[str]] = {}
    for reason, count in reasons.items():
        groups.setdefault(_KIND.sub("", reason), Counter())[reason] += count
    by_size = sorted(groups.items(), key=lambda group: -group[1].total())
    return ", ".join(_with_kinds(name, kinds) for name, kinds in by_size)


def _with_kinds(name: str, kinds: Counter[str]) -> str:
    if len(kinds) == 1:
        return f"{kinds.total():,} {min(kinds)}"
    named = Counter({kind[1]: n for each, n in kinds.items() if (kind := _KIND.search(each))})
    largest = named.most_common(KINDS)
    others = kinds.total() - sum(count for _, count in largest)
    parts = [f"{kind} {count:,}" for kind, count in largest]
    parts += [how_many(others, "other")] * bool(others)
    return f"{kinds.total():,} {name} ({', '.join(parts)})"


@contextmanager
def about(**names: str) -> Iterator[None]:
    """Add names, such as that of a run, to all JSON messages while the context lasts."""
    former = dict(_about)
    _about.update(names)
    try:
        yield
    finally:
        _about.clear()
        _about.update(former)


@contextmanager
def on_stderr(form: str = TEXT) -> Iterator[None]:
    """Write messages to stderr while the context lasts, unless they are read elsewhere already.

    As JSON, whatever else is written there meanwhile, by libraries or workers, becomes messages.
    """
    if is_heard():
        yield
        return
    with ExitStack() as stack:
        if form == JSON:
            stack.enter_context(_captured_warnings())
            is_ours = _is_process_stderr()
            stderr = stack.enter_context(_second_stderr()) if is_ours else sys.stderr
            stack.enter_context(_handling(logging.getLogger(), stderr, _JsonLines()))
            if is_ours:  # ends first, so that its last lines are handled
                stack.enter_context(_lines_of_others(stderr))
        else:
            stack.enter_context(_handling(LOGGER, sys.stderr, _Text()))
        yield


def is_heard() -> bool:
    """Return whether messages are read already: by `on_stderr`, or by the calling program."""
    return is_json() or bool(LOGGER.handlers)


def is_json() -> bool:
    """Return whether messages are JSON lines, which programs read."""
    return any(isinstance(each.formatter, _JsonLines) for each in logging.getLogger().handlers)


@contextmanager
def beside_a_bar() -> Iterator[None]:
    """Write messages above a bar of tqdm, and not into it."""
    with logging_redirect_tqdm([LOGGER]):
        yield


@contextmanager
def _handling(logger: logging.Logger, stream: TextIO, lines: logging.Formatter) -> Iterator[None]:
    handler = _Handler(stream)
    handler.setFormatter(lines)
    handler.addFilter(_is_for_people if isinstance(lines, _Text) else _is_for_programs)
    former = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = logger is not LOGGER
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        LOGGER.setLevel(former[0])
        LOGGER.propagate = former[1]


def _is_for_people(record: logging.LogRecord) -> bool:
    return getattr(record, "for_people", True)


def _is_for_programs(record: logging.LogRecord) -> bool:
    """Return whether a record is ours, or a warning of a library."""
    return record.name == LOGGER.name or record.levelno >= logging.WARNING


class _Handler(logging.StreamHandler[TextIO]):
    """A handler that keeps quiet about a stderr that nobody reads any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing, because the complaint would be written to stderr, too."""


class _Text(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        kind = "error: " if getattr(record, "event", "") == ERROR else ""
        lines = record.getMessage().split("\n")
        return f"captioner: {kind}" + "\n".join(map(printable, lines))


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, what it is about, details, message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "library"),
            **_about,
            **getattr(record, "details", {"logger": record.name}),
            "message": record.getMessage().strip(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def _captured_warnings() -> Iterator[None]:
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)


def _is_process_stderr() -> bool:
    """Return whether `sys.stderr` writes to the file of that name, and not elsewhere in a test."""
    try:
        return sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _second_stderr() -> TextIO:
    return os.fdopen(os.dup(2), "w", encoding="utf-8")


@contextmanager
def _lines_of_others(stderr: TextIO) -> Iterator[None]:
    """Log each line that others write to stderr, which goes on as `stderr`."""
    read, write = os.pipe()
    thread = threading.Thread(target=_log_lines, args=[read], daemon=True)
    thread.start()
    os.dup2(write, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr.fileno(), 2)
        os.write(write, b"\n" + _END)
        os.close(write)
        thread.join()


def _log_lines(file: int) -> None:
    # Ctrl-C is for the main thread, even while that blocks it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with os.fdopen(file, "rb") as lines:
        while (line := lines.readline(_LINE_BYTES)) and line != _END:
            if text := line.decode(errors="replace").strip():
                warn(text, "output")
