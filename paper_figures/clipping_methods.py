"""What ways of clipping do: who succeeds, by how many updates are clipped and how much; how far updates are turned."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, Look, letter
from paper_figures.summaries import select

NETWORKS = {"elman-tanh": "Elman (tanh), recall", "lstm": "LSTM, adding"}

LOOKS = {
    "none": Look("none, lower rates", "black", "-", "x"),
    "global_norm": Look("global norm", "#15335c", "-", "o"),
    "normalising": Look("normalised", "#4a9fd8", (0, (5, 1.5)), "s"),
    "percentile": Look("percentile", "#7a7a7a", (0, (1.6, 1.0)), "v"),
    "value": Look("value", "#b8301c", "-", "^"),
    "parameter_norm": Look("each parameter's norm", "#f0a11b", (0, (5, 1.5)), "D"),
    "unit_ratio": Look("each unit's ratio", "#7d4a9e", (0, (5, 1.2, 1.2, 1.2)), "P"),
    "each_step": Look("each step's adjoint", "#2e8b57", (0, (1.6, 1.0)), "*"),
}
"""In greyscale markers and dashes tell them apart."""

PANELS = (
    ("clip_share", "success", "share of updates clipped", "share of seeds that solve it"),
    ("log_factor", "success", "ln of their factor, or the rate's", "share of seeds that solve it"),
    ("clip_share", "clip_angle", "share of updates clipped", "turned by [degrees]"),
)
"""Quantities of the summary along x and y, and their labels."""


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the figure: a row for each network, a column for each pair of quantities.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    networks = [network for network in NETWORKS if network in set(summary["network"])]
    figure = Figure(figsize=(TEXT_WIDTH, 0.7 + 2.1 * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), len(PANELS), sharey="col", squeeze=False)
    for row, network in enumerate(networks):
        for column, (x, y, x_label, y_label) in enumerate(PANELS):
            axes: Axes = grid[row, column]
            for method, look in LOOKS.items():
                _draw_method(axes, select(summary, network=network, method=method), x, y, look)
            axes.set_ylabel(y_label)
            if x == "clip_share":
                axes.set_xlim(-0.05, 1.05)
            if row == len(networks) - 1:
                axes.set_xlabel(x_label)
            letter(axes, "abcdef"[len(PANELS) * row + column])
        grid[row, 0].set_title(NETWORKS[network], loc="left", fontstyle="italic")
        for axes in grid[row, :2]:
            axes.set_ylim(-0.05, 1.1)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3, columnspacing=1.5)
    return figure


def _draw_method(axes: Axes, chosen: pd.DataFrame, x: str, y: str, look: Look) -> None:
    """Draw one way of clipping, its thresholds joined in their order."""
    along_x, along_y = (select(chosen, quantity=name)[["threshold", "mean", "error"]] for name in (x, y))
    both = along_x.merge(along_y, on="threshold", suffixes=("_x", "")).sort_values("threshold")
    if both.empty:
        return
    axes.errorbar(
        both["mean_x"],
        both["mean"],
        yerr=np.nan_to_num(both["error"]),
        color=look.color,
        linestyle=look.dash,
        linewidth=1,
        elinewidth=0.6,
        marker=look.marker,
        markersize=5,
        label=look.label,
    )
