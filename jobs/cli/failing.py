"""How a command fails: what programs read about it, and options named as they were given."""

import argparse
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from captioner.errors import CaptionerError
from captioner.jobs.cli.job_options import FLAGS
from captioner.jobs.errors import JobError, exit_code_of, with_remedy
from captioner.jobs.messages import FORMATS, TEXT
from captioner.jobs.storage.signatures import without_signatures

# The name of an option, as it is in a job file; not a part of a path, a URL or a quotation
_NAME = re.compile(
    r"^[a-z]+(?= must | needs | is | does )"
    r"|(?<![\w/.:\-'\"])[a-z]+(?:_[a-z]+)+(?![\w/.:\-'\"])"
    r"|(?<=\bif )[a-z]+(?= is given)"
)


def wanted(arguments: Sequence[str]) -> tuple[str, bool]:
    """Return the format of messages, and whether stdout is JSON, for a line that may be wrong.

    A job file may say both, for all messages but those about that file.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--log-format")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--config", type=Path)
    with suppress(argparse.ArgumentError):
        found, _ = parser.parse_known_args(arguments)
        runs = arguments[:1] in (["run"], ["plan"])  # the others have one format
        in_file = _job_file(found.config) if runs and found.config else {}
        form = (found.log_format or in_file.get("log_format")) if runs else TEXT
        return form if form in FORMATS else TEXT, found.json or in_file.get("json") is True
    return TEXT, "--json" in arguments


def _job_file(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        if path.is_file():
            return tomllib.loads(path.read_text(encoding="utf-8"))
    return {}


@contextmanager
def failing(arguments: Sequence[str], as_json: bool) -> Iterator[None]:
    """Print how a command fails as the last line of stdout, if that is JSON."""
    try:
        yield
    except (SystemExit, BrokenPipeError):
        raise
    except BaseException as error:
        if as_json:
            print(_failure(error, arguments), flush=True)
        raise


def _failure(error: BaseException, arguments: Sequence[str]) -> str:
    """Return the report of the run that an error ended or, if none had begun, the error."""
    if isinstance(error, JobError) and error.report:
        return error.report.to_json(indent=None)
    reason = reason_of(error, arguments)
    return json.dumps({"exit_code": int(exit_code_of(error)), "error": reason})


def reason_of(error: BaseException, arguments: Sequence[str]) -> str:
    """Return why a command fails, without signatures, with options named as they were given."""
    if isinstance(error, JobError | CaptionerError):
        return as_given(without_signatures(str(error)), arguments)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return without_signatures(lack_of(error) or repr(error))


def lack_of(fault: BaseException) -> str | None:
    """Return what this machine lacks, and what to do, if that is the fault."""
    if isinstance(fault, MemoryError) or "failed to map segment" in str(fault):
        return "there is too little memory: allow more (ulimit -v), or let fewer programs run"
    if any(words in str(fault) for words in ("start new thread", "launch worker thread")):
        return "no more threads can start: allow more processes (ulimit -u) and memory (ulimit -v)"
    if isinstance(fault, OSError) and (text := with_remedy(fault)) != str(fault):
        return text
    return None


def as_given(text: str, arguments: Sequence[str]) -> str:
    """Return a message with hyphens in the names of options that are on the command line.

    Those of a job file stay as they are. Without one, options of a run that are missing are meant
    for the command line, too.
    """
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    if arguments[:1] in (["run"], ["plan"]) and "--config" not in options:
        options |= {f"--{name.replace('_', '-')}" for name in FLAGS}

    def option(found: re.Match[str]) -> str:
        flag = f"--{found[0].replace('_', '-')}"
        return flag if flag in options else found[0]

    return _NAME.sub(option, text)
