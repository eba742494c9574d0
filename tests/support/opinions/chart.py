"""A picture of the curves, legible on light and on dark pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tests.support.opinions.figures import SHARES, Figures

INK, QUIET = "#737b85", "#8b949e"
CONFIDENCE, ORACLE = "#2f81f7", "#d29922"
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "captioner",
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(sets: Mapping[str, Figures], path: Path) -> None:
    """Write a diagram for each set of photographs, side by side, as SVG or PNG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(sets), 3.3), layout="constrained")
        all_axes = figure.subplots(1, len(sets), squeeze=False)[0]
        for axes, (name, of_set) in zip(all_axes, sets.items(), strict=True):
            _curves(axes, of_set)
            axes.set_title(name, fontsize=11)
            axes.set_xlabel("images sent to the second captioner")
        all_axes[0].set_ylabel("mean CIDEr of the captions")
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(path, transparent=True, dpi=150, metadata={"Date": None})


def _curves(axes: Any, of_set: Figures) -> None:
    lines = (
        ("the least certain first", of_set.by_confidence, CONFIDENCE, "-", 2.5),
        ("in random order (band: 95%)", of_set.at_random, QUIET, "-", 1.5),
        ("in the best possible order", of_set.by_oracle, ORACLE, "--", 1.5),
    )
    for label, values, colour, style, width in lines:
        axes.plot(SHARES, values, style, color=colour, linewidth=width, label=label)
    axes.fill_between(SHARES, *of_set.band, color=QUIET, alpha=0.25, linewidth=0)
    axes.set(xlim=(0, 1), xticks=QUARTERS)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
