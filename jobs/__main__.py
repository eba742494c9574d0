"""The command `captioner`, also as `python -m captioner.jobs`.

Most of its first second goes into imports, so Ctrl-C is expected from here on.
"""

import json
import signal
import sys


def main() -> int:
    """Run the command line of this process; return its exit code."""
    try:
        from captioner.jobs.cli.main import main as run

        code = run()
    except KeyboardInterrupt:
        code = _interrupted()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and Python only has to end
    return code


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
