"""What identifies a captioner. Importing this does not import torch."""

import hashlib

# Raise it whenever the code changes a caption, from decoding to the house rules: captions of the
# former version become stale. tests/captioner/test_golden.py says when that is.
PIPELINE_VERSION = 3


def identity(
    model: str,
    precision: str | None,
    own_weights: str = "",
    pipeline_version: int = PIPELINE_VERSION,
) -> str:
    """Return "<name>@<12 hex digits>" for "<name>@<digits>", a model with its settings.

    The new digits are of the old ones, the precision that the model computes in, the hash of the
    weights that it has for this precision alone, and the version of the pipeline.
    """
    name, _, digits = model.rpartition("@")
    content = f"{digits} {precision}{own_weights} {pipeline_version}"
    return f"{name}@{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def computing(precision: str | None) -> dict[str, object]:
    """Return what `identity` adds to a model's own settings, to record with its captions."""
    return {"precision": precision, "pipeline_version": PIPELINE_VERSION}
