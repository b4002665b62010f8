"""Longer sequences are learned with clipping, and longer ones still with Omega.

Claim: of networks on 20, 30 and 40 steps hardly any learn without clipping, at either rate; a third do with it, and
three quarters with Omega as well.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, Look, add_legend, letter
from paper_figures.summaries import select

INITIALISERS = {
    "smart_tanh": "tanh, sparse, radius 0.95",
    "basic_tanh": "tanh, Gaussian",
    "sigmoid": "sigmoid, Gaussian",
}

METHODS = {
    "plain": "SGD",
    "clipped": "SGD, clipped",
    "clipped_omega": "SGD, clipped, Ω",
}

LOOKS = (
    Look("", "#4a9fd8", (0, (5, 1.5)), "s"),
    Look("", "#15335c", (0, (1.6, 1.0)), "o"),
    Look("", "#f0a11b", (0, (5, 1.2, 1.2, 1.2)), "D"),
    Look("", "#b8301c", "-", "^"),
)
"""Of the curves in their order; their labels are made from method and rate."""

APART = 0.45
"""Steps between points of the same length, so that error bars can be told apart."""


def draw(summary: pd.DataFrame) -> Figure:
    """Draw a column for each initialiser; above, success rates against the length; below, accuracies.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    initialisers = [name for name in INITIALISERS if name in set(summary["initialiser"])]
    figure = Figure(figsize=(TEXT_WIDTH, 4.3), layout="constrained")
    grid = figure.subplots(2, len(initialisers), sharex="all", sharey="row", squeeze=False)
    for column, name in enumerate(initialisers):
        of_one = select(summary, initialiser=name)
        _curves(grid[0, column], select(of_one, quantity="success_rate"))
        _curves(grid[1, column], select(of_one, quantity="last_accuracy"))
        chance = select(of_one, quantity="chance_level")["mean"].iloc[0]
        grid[1, column].axhline(chance, color="0.6", linewidth=0.7, zorder=0)
        grid[1, column].annotate("chance", (0.01, chance - 0.08), xycoords=("axes fraction", "data"), color="0.4")
        grid[0, column].set_title(INITIALISERS[name])
        grid[1, column].set_xlabel("length T [steps]")
        for row in (0, 1):
            letter(grid[row, column], "abcdef"[len(initialisers) * row + column])
            grid[row, column].set_ylim(-0.03, 1.05)
            grid[row, column].set_xticks(sorted(of_one["x"].unique()))
    grid[0, 0].set_ylabel("share of networks that succeed")
    grid[1, 0].set_ylabel("accuracy at the last evaluation")
    add_legend(figure, grid[0, 0], {})
    return figure


def _curves(axes: Axes, summary: pd.DataFrame) -> None:
    kinds = list(summary[["method", "learning_rate"]].drop_duplicates().itertuples(index=False))
    for number, ((method, rate), how) in enumerate(zip(kinds, LOOKS, strict=False)):
        curve = select(summary, method=method, learning_rate=rate)
        below = (curve["mean"] - curve["low"]).fillna(curve["error"])
        above = (curve["high"] - curve["mean"]).fillna(curve["error"])
        axes.errorbar(
            curve["x"] + APART * (number - (len(kinds) - 1) / 2),
            curve["mean"],
            yerr=[below, above],
            color=how.color,
            linestyle=how.dash,
            marker=how.marker,
            elinewidth=0.9,
            capsize=2,
            label=f"{METHODS[method]}, rate {rate:g}",
        )
