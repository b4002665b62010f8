"""Gates learn to add over 200 steps, orthogonal weights to copy; plain networks stay at chance in both.

Claim: LSTM and GRU solve the adding problem with every seed, tanh networks stay at chance, and relu networks that start
from the identity are between; the orthogonal network solves copying with every seed, tanh networks stay at chance, and
gated ones are between.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_figures.style import TEXT_WIDTH, draw_curve, letter
from paper_figures.summaries import select

TASKS = {
    "adding": ("adding problem", r"$\log_{10}$ mean squared error"),
    "copying_memory": ("copying", r"$\log_{10}$ cross-entropy [nats]"),
}
"""Task -> title of its panel, label of its y axis."""

HIGHEST = 0.6
"""Upper end of the y axes, decades above chance: early in training some networks do far worse."""

LEVELS = {"chance_level": ("chance", (0, (4, 2))), "solved_level": ("solved below", (0, (1, 1.5)))}
"""Quantity -> name in the legend, dash."""


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the test metric against updates, a panel for each task.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 3.2), layout="constrained")
    panels = figure.subplots(1, len(TASKS))
    for axes, (task, (title, label)), name in zip(panels, TASKS.items(), "ab", strict=True):
        of_task = select(summary, task=task)
        for network in of_task["network"].unique():
            draw_curve(axes, network, select(of_task, network=network, quantity="log10_metric"))
        for quantity, (_, dash) in LEVELS.items():
            level = select(of_task, quantity=quantity)["mean"].iloc[0]
            axes.axhline(np.log10(level), color="0.45", linewidth=0.9, linestyle=dash, zorder=0)
        axes.set_ylim(top=np.log10(select(of_task, quantity="chance_level")["mean"].iloc[0]) + HIGHEST)
        axes.set_title(title)
        axes.set_xlabel("updates")
        axes.set_ylabel(label)
        letter(axes, name)
    _legend(figure, panels)
    return figure


def _legend(figure: Figure, panels: list[Axes]) -> None:
    """Name every network once, whichever panels it is in."""
    curves = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        curves |= dict(zip(labels, handles, strict=True))
    for name, dash in LEVELS.values():
        curves[name] = Line2D([], [], color="0.45", linewidth=0.9, linestyle=dash)
    figure.legend(curves.values(), curves.keys(), loc="outside upper center", ncols=4, handlelength=3)
