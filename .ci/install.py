"""Install this project, editable, with an extra: `.venv/bin/python .ci/install.py EXTRA`.

uv needs a fraction of pip's time; pip takes over where uv cannot be had, or fails. uv does not read
pip's configuration, so its settings are handed over as uv's environment variables.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
INSTALL = (*PIP, "install", "--quiet")
UV_INSTALL = (
    *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable),
    *("--index-strategy", "unsafe-best-match"),  # the newest release of all indexes, as pip does
)
UV_VARIABLES = {  # a setting of pip: uv's variable, and what separates the values in it
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
}


def main() -> int:
    """Install with uv, otherwise with pip; return the exit code."""
    project = ("--editable", f".[{sys.argv[1]}]")
    print(f"Installing into {os.path.relpath(sys.prefix)} ...", flush=True)
    if run(*INSTALL, "uv") == 0:
        environment = uv_variables(pip_settings()) | os.environ
        if run(*UV_INSTALL, *project, environment=environment) == 0:
            return 0
    print("Installing with pip instead, which takes some minutes ...", flush=True)
    return run(*INSTALL, *project)


def run(*command: str, environment: Mapping[str, str] | None = None) -> int:
    """Run a command and return its exit code."""
    return subprocess.run(command, env=environment, check=False).returncode


def pip_settings() -> dict[str, list[str]]:
    """Return the values of pip's settings; its environment variables win over its files."""
    listed = subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True, check=True)
    settings: dict[str, list[str]] = {}
    for place in ("global.", "install.", ":env:."):
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(place):
                settings[name.removeprefix(place)] = ast.literal_eval(value).split()
    return settings


def uv_variables(settings: Mapping[str, list[str]]) -> dict[str, str]:
    """Return settings of pip as environment variables of uv."""
    return {
        variable: separator.join(settings[name])
        for name, (variable, separator) in UV_VARIABLES.items()
        if name in settings
    }


if __name__ == "__main__":
    raise SystemExit(main())
