"""A step from a wall in the loss leads nowhere, unless its length is bounded; and the wall grows with the horizon.

Claim: without clipping most paths are thrown far from the minimum beside the wall, with it all of them reach it;
gradient and curvature at the wall grow by the multiplier of the unstable fixed point, and by its square, at every step.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, Look, letter
from paper_figures.summaries import select

METHODS = {
    "plain": Look("without clipping", "#b8301c", (0, (5, 1.5)), "s"),
    "clipped": Look("clipped", "#15335c", "-", "o"),
}
FLOOR = 1e-4
"""Least loss that has a colour of its own."""

BIASES = (-4.2, -0.4)
STARTS: dict[str, Any] = {
    "marker": "*",
    "markersize": 7,
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
    "zorder": 6,
}


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the surface with paths, the loss along them, how many reach the bottom, and the wall against the horizon.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 5.2), layout="constrained")
    grid = figure.subplots(2, 2, width_ratios=(1.15, 1))
    shown_rate = select(summary, quantity="path")["learning_rate"].iloc[0]
    of_rate = select(summary, learning_rate=shown_rate)
    _surface(figure, grid[0, 0], summary)
    _losses(grid[0, 1], select(of_rate, quantity="loss"))
    _shares(grid[1, 0], select(of_rate, quantity="share_at_bottom"))
    _wall(grid[1, 1], summary)
    for number, axes in enumerate(grid.flat):
        letter(axes, "abcd"[number])
    handles, labels = grid[0, 1].get_legend_handles_labels()
    title = f"gradient descent of rate {shown_rate:g}:"
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), handlelength=3.5, title=title)
    return figure


def _surface(figure: Figure, axes: Axes, summary: pd.DataFrame) -> None:
    surface = select(summary, quantity="loss_surface")
    shape = len(surface["x"].unique()), -1
    weight, bias, loss = (surface[column].to_numpy(float).reshape(shape) for column in ("x", "y", "mean"))
    levels = np.geomspace(FLOOR, 1, 25)
    loss = np.maximum(loss, FLOOR)
    filled = axes.contourf(weight, bias, loss, levels=levels, norm=LogNorm(FLOOR, 1), cmap="Greys_r")
    axes.contour(weight, bias, loss, levels=levels[::3], colors="white", linewidths=0.3)
    figure.colorbar(filled, ax=axes, label="loss", ticks=[1e-4, 1e-3, 1e-2, 1e-1, 1])
    paths = select(summary, quantity="path")
    for method, seed in paths[["method", "seed"]].drop_duplicates().itertuples(index=False):
        path, how = select(paths, method=method, seed=seed), METHODS[method]
        axes.plot(
            path["x"], path["y"], color=how.color, linestyle=how.dash, marker=how.marker, markersize=2, linewidth=1
        )
        axes.plot(path["x"].iloc[0], path["y"].iloc[0], **STARTS)
    axes.set(xlim=(weight.min(), weight.max()), ylim=BIASES, xlabel="weight w", ylabel="bias b")


def _losses(axes: Axes, summary: pd.DataFrame) -> None:
    for method, how in METHODS.items():
        curve = select(summary, method=method)
        made, mean, error = (curve[column].to_numpy(float) for column in ("x", "mean", "error"))
        axes.plot(1 + made, mean, color=how.color, linestyle=how.dash, marker=how.marker, markevery=6, label=how.label)
        axes.fill_between(1 + made, mean - error, mean + error, color=how.color, alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="updates + 1", ylabel="loss, mean over starts")


def _shares(axes: Axes, summary: pd.DataFrame) -> None:
    for method, how in METHODS.items():
        curve = select(summary, method=method)
        spread = [curve["mean"] - curve["low"], curve["high"] - curve["mean"]]
        look = {"color": how.color, "linestyle": how.dash, "marker": how.marker}
        axes.errorbar(curve["horizon"], curve["mean"], yerr=spread, capsize=2, **look)
    axes.set(xlabel="horizon T [steps]", ylabel="share of paths at the bottom", ylim=(-0.03, 1.05))


def _wall(axes: Axes, summary: pd.DataFrame) -> None:
    rate = select(summary, quantity="log10_multiplier")["mean"].iloc[0]
    for power, quantity, label, color, marker in (
        (2, "log10_wall_curvature", r"curvature; slope $2 \log_{10} m$", "#f0a11b", "D"),
        (1, "log10_wall_gradient", r"gradient norm; slope $\log_{10} m$", "#15335c", "o"),
    ):
        curve = select(summary, quantity=quantity).sort_values("x")
        horizon, height = curve["x"].to_numpy(float), curve["mean"].to_numpy(float)
        axes.plot(horizon, height[-1] + power * rate * (horizon - horizon[-1]), color=color, linewidth=0.8)
        axes.plot(horizon, height, color=color, marker=marker, linestyle="none", label=label)
    axes.set(xlabel="horizon T [steps]", ylabel=r"$\log_{10}$ of the largest at the wall", ylim=(0, 11))
    axes.legend(loc="upper left", handlelength=1)
