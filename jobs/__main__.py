"""The command `captioner`, also as `python -m captioner.jobs`.

Most of its first second goes into imports, so Ctrl-C is expected from here on.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """Run the command line of this process; return its exit code."""
    _open_missing_streams()
    try:
        from captioner.jobs.cli.main import main as run

        code = run()
    except KeyboardInterrupt:
        code = _interrupted()
    except RuntimeError as error:  # Python 3.11 wraps what interrupts the creation of a class
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = _interrupted()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and Python only has to end
    return code


def _open_missing_streams() -> None:
    """Open the null device for standard streams that are closed, or files would get their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def _interrupted() -> int:
    """Say so, without what may be half imported."""
    words = " ".join(sys.argv[1:]).replace("=", " ")
    code = 128 + signal.SIGINT
    line = {"level": "warning", "event": "interrupted", "exit_code": code, "message": "interrupted"}
    is_json = "--log-format json" in words
    print(json.dumps(line) if is_json else "captioner: interrupted", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
