"""The second pass of a job: which options it has, and which of the first it must not have."""

from typing import Any

SECOND = {  # options of a second opinion in the same job
    *("checkpoint", "redo_below", "redo_share", "where", "limit", "stale", "language", "prompt"),
    *("trust_remote_code", "send_pixels", "beam_size", "max_characters", "batch_size"),
    *("partition_size", "workers", "device", "precision", "max_requests", "max_cost", "prices"),
}
PLAIN: dict[str, Any] = {  # options of the first pass that the second must not have
    **dict.fromkeys(("min_confidence", "target_precision", "retry_failed", "batch_size")),
    **dict.fromkeys(("limit", "redo_below", "redo_share", "where", "max_requests", "prompt")),
    **dict.fromkeys(("force", "prune", "embeddings", "trust_remote_code"), False),
    "stale": "keep",
    "precision": "auto",
    "max_cost": None,
    "count_all_failures": False,
    "prices": {},
    "second": {},
    "calibration": None,
}
