"""Some clipping is needed, hardly which: who succeeds, and how far updates are turned, against how many are clipped.

Claim: at these rates no network succeeds without clipping; with each of the ways there is a threshold at which nearly
all do, and turning the gradient by as much as 50 degrees does no harm.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, Look, letter
from paper_figures.summaries import select

NETWORKS = {"elman-tanh": "Elman, tanh: recall", "lstm": "LSTM: adding"}

LOOKS = {
    "none": Look("no clipping", "black", "-", "x"),
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
    ("success", "share of seeds that solve it"),
    ("updates", "updates until solved"),
    ("clip_angle", "turned by [degrees]"),
)
"""Quantity of the summary, label of its y axis."""


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the figure: a row for each network, a column for each quantity.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    networks = [network for network in NETWORKS if network in set(summary["network"])]
    figure = Figure(figsize=(TEXT_WIDTH, 0.7 + 2.1 * len(networks)), layout="constrained")
    grid = figure.subplots(len(networks), len(PANELS), sharex=True, sharey="col", squeeze=False)
    for row, network in enumerate(networks):
        for column, (quantity, label) in enumerate(PANELS):
            axes: Axes = grid[row, column]
            for method, look in LOOKS.items():
                chosen = select(summary, network=network, method=method)
                _draw_method(axes, chosen, quantity, look)
            axes.set_ylabel(label)
            if row == len(networks) - 1:
                axes.set_xlabel("share of updates clipped")
            letter(axes, "abcdef"[len(PANELS) * row + column])
        grid[row, 0].set_title(NETWORKS[network], loc="left", fontstyle="italic")
        grid[row, 0].set_ylim(-0.05, 1.08)
        grid[row, 1].set_yscale("log")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3, columnspacing=1.5)
    return figure


def _draw_method(axes: Axes, chosen: pd.DataFrame, quantity: str, look: Look) -> None:
    """Draw one way of clipping, its thresholds joined from the tightest to the loosest."""
    x, y = (select(chosen, quantity=name).set_index("threshold") for name in ("clip_share", quantity))
    both = x.join(y, lsuffix="_share", how="inner").sort_index()
    if both.empty:
        return
    axes.errorbar(
        both["mean_share"],
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
