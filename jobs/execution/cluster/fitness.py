"""Whether a worker captions as the driver says: same Python, packages, code, model, settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client

from captioner.errors import CaptionerError
from captioner.jobs.errors import UsageError
from captioner.jobs.execution.cluster import probe
from captioner.jobs.execution.worker.own_identity import SOURCES, own_identity
from captioner.loading import identify
from captioner.options import CaptionerOptions

# Whatever may change a caption, a status or a row, or stand between driver and worker.
PACKAGES = (
    *("torch", "torchvision", "numpy", "safetensors", "transformers", "tokenizers", "py3langid"),
    *("pillow", "simplejpeg", "pillow-heif", "pillow-jxl-plugin", "rawpy"),
    *("pyarrow", "fsspec", "s3fs", "aiobotocore", "gcsfs", "adlfs", "aiohttp", "httpx"),
    *("dask", "distributed"),
)
# A worker may have more of these: they change no row.
STORES = ("s3fs", "aiobotocore", "gcsfs", "adlfs")
PROBE = Path(probe.__file__).read_text(encoding="utf-8")
RUN_PROBE = "(exec(source, found), found['describe'](packages))[1]"  # on any Python, by `eval`
URGENT = 1000  # before the tasks that wait


@dataclass(frozen=True)
class Wanted:
    """What a worker must be; `options` are those of the captioner."""

    options: CaptionerOptions
    identity: str
    process: Mapping[str, Any] = field(default_factory=lambda: probe.describe(PACKAGES))


def wanted(options: CaptionerOptions) -> Wanted:
    """Return what the workers of a captioner must be, as here; UsageError without the captioner."""
    try:
        return Wanted(options, identify(options))
    except CaptionerError as error:
        raise UsageError(str(error)) from error


async def unfitness(client: Client, address: str, wanted: Wanted) -> str | None:
    """Return why a worker must not have a task, None if it may; on the event loop of the client.

    Raise OSError if it does not answer.
    """
    try:
        values = {"source": PROBE, "found": {"__name__": "probe"}, "packages": PACKAGES}
        found = await client.run(eval, RUN_PROBE, values, workers=[address])
        reason = difference(found[address], wanted.process)
        return reason or await _captioner_difference(client, address, wanted)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 (the boundary: of a worker of any kind)
        return f"it cannot be checked: {' '.join(str(error).split()) or type(error).__name__}"


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Return how a worker's process differs from the driver's, and what to do; None if not at all.

    >>> difference(worker, driver)
    'torch 2.6, but 2.12 here: install the same on both'
    """
    if found["python"] != wanted["python"]:
        return f"Python {found['python']}, but {wanted['python']} here: use the same"
    differing = [
        f"{name} {found['packages'].get(name) or 'is missing'}, but {version or 'is missing'} here"
        for name, version in wanted["packages"].items()
        if version != found["packages"].get(name) and not (version is None and name in STORES)
    ]
    if differing:
        return f"{'; '.join(differing)}: install the same on both"
    if found["sources"] is None:
        return "captioner is missing: install it there"
    if found["sources"] != wanted["sources"]:
        return "the code of captioner differs from that here: install the same"
    return None


async def _captioner_difference(client: Client, address: str, wanted: Wanted) -> str | None:
    check = client.submit(
        own_identity, wanted.options, workers=[address], pure=False, priority=URGENT
    )
    try:
        identity, sources = await check
    except (CaptionerError, OSError) as error:  # such as files that it may not read
        return str(error)
    if sources != SOURCES:
        return "it runs code of captioner that has been replaced since: restart it"
    if identity != wanted.identity:
        return f"its captioner is {identity}, but {wanted.identity} here: copy the same model there"
    return None
