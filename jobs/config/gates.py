"""The table `gates` of a job file: limits on the quality of a run, and on its change.

A name is `min_` or `max_` and what is measured, or `max_`, what is measured, and `_drop` or
`_rise`: how far it may change from the former run.
"""

from collections.abc import Mapping

from captioner.jobs.config.values import FAILURES, is_count, is_probability
from captioner.jobs.errors import UsageError
from captioner.jobs.toml_file import check_keys

MIN_IMAGES = "min_images"  # a run of fewer is not judged
DEFAULT_MIN_IMAGES = 100
BY_STATUS = ("max_failed", "max_failed_rise")
GATES = (
    *("min_unique", "max_top_caption", "min_confidence", "max_low_confidence", "max_failed"),
    *("max_unique_drop", "max_top_caption_rise", "max_confidence_drop"),
    *("max_low_confidence_rise", "max_failed_rise"),
)


def size_only(gates: Mapping[str, object]) -> dict[str, object]:
    """Return the table without limits: which runs are large enough, if it says so."""
    return {MIN_IMAGES: gates[MIN_IMAGES]} if MIN_IMAGES in gates else {}


def check_gates(gates: object) -> None:
    """Raise UsageError unless every gate exists, and its limit is a number from 0 to 1."""
    if not isinstance(gates, Mapping):
        raise UsageError(f"gates must be a table of limits such as min_unique = 0.3, not {gates!r}")
    check_keys(gates, (*GATES, MIN_IMAGES), "in the table gates")
    for name, limit in gates.items():
        if name == MIN_IMAGES:
            is_possible, kind = is_count(limit), "a whole number above 0"
        elif name in BY_STATUS and isinstance(limit, Mapping):
            check_keys(limit, FAILURES, f"in gates.{name}")
            is_possible, kind = all(map(is_probability, limit.values())), "shares from 0 to 1"
        else:
            is_possible, kind = is_probability(limit), "a number from 0 to 1"
        if not is_possible:
            raise UsageError(f"gates.{name} must be {kind}, not {limit!r}")
