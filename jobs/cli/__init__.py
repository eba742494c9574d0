"""The command `captioner`, and all text that it prints."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import argparse

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OUT_HELP = (
    "folder or URL that `captioner run --out` wrote to; for a URL, endpoint and credentials come "
    "from the environment (AWS_ENDPOINT_URL, FSSPEC_S3_KEY ...)"
)
