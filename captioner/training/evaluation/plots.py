"""Diagrams of the reliability of a confidence."""

import importlib
from pathlib import Path
from typing import Any

from captioner.errors import MissingExtraError
from captioner.training.config import make_folder
from captioner.training.evaluation.reliability import COVERAGES, Reliability


def require_plots(folder: Path) -> None:
    """Create the folder; raises CaptionerError now if plots could not be written there later."""
    _matplotlib()
    make_folder(folder)


def draw(result: Reliability, folder: Path) -> tuple[Path, ...]:
    """Write reliability.png and risk_coverage.png into an existing folder; return their paths.

    Raises MissingExtraError without matplotlib.
    """
    paths = (folder / "reliability.png", folder / "risk_coverage.png")
    for path, fill in zip(paths, (_reliability, _risk_coverage), strict=True):
        figure = _matplotlib().Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        fill(axes, result)
        axes.set(ylabel="acceptable share", ylim=(0, 1))
        axes.legend()
        figure.savefig(path, dpi=150)
    return paths


def _reliability(axes: Any, result: Reliability) -> None:
    """Plot the acceptable share of each bin over its confidence, with two standard errors."""
    confidence, acceptable, captions = zip(*result.bins, strict=True)
    errors = [
        2 * (share * (1 - share) / count) ** 0.5
        for share, count in zip(acceptable, captions, strict=True)
    ]
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect calibration")
    axes.errorbar(
        confidence, acceptable, errors, fmt="o", capsize=3, label=f"captions, {len(captions)} bins"
    )
    ece = f"ECE {result.ece:.3f} (by chance {result.ece_by_chance:.3f})"
    axes.set(title=f"Reliability: {ece}", xlabel="confidence", xlim=(0, 1))


def _risk_coverage(axes: Any, result: Reliability) -> None:
    """Plot the acceptable share of the captions that remain without the least confident."""
    auroc = "" if result.auroc is None else f": AUROC {result.auroc:.3f}"
    axes.axhline(result.acceptable, color="0.6", linestyle="--", label="all captions")
    axes.plot(COVERAGES, result.acceptable_at, marker="o", label="most confident captions")
    label = "coverage (share of captions kept)"
    axes.set(title=f"Risk and coverage{auroc}", xlabel=label, xlim=(0, 1.02))


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'captioner[train]'") from error
