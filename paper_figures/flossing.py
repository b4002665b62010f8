"""Flossing extends the delay that a plain network learns: exponents near 0 carry the gradient back to both bits.

Claim: most flossed networks learn the XOR at a delay of 12, where none of the others does; at 16 and 24 they are above
chance, and the others are not.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, Look, letter, zero_line
from paper_figures.summaries import select

LOOKS = {
    "none": Look("no flossing", "#15335c", "-", "o"),
    "before": Look("flossed before", "#f0a11b", (0, (5, 1.5)), "s"),
    "before and during": Look("before and during", "#b8301c", (0, (5, 1.2, 1.2, 1.2)), "^"),
}
DRAWN = Look("as drawn", "#8a8a8a", (0, (1.6, 1.0)), "v")
FLOSSED = Look("flossed, untrained", "#4a9fd8", (0, (3, 1)), "D")


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the figure: accuracy and success against the delay; spectra and the leading exponent at one delay.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 4.6), layout="constrained")
    grid = figure.subplots(2, 2)
    delays = sorted(summary["delay"].unique())
    delay = delays[len(delays) // 2]
    conditions = {name: look for name, look in LOOKS.items() if name in set(summary["condition"])}
    for condition, look in conditions.items():
        own = select(summary, condition=condition)
        for axes, quantity in ((grid[0, 0], "accuracy"), (grid[0, 1], "success")):
            _draw(axes, select(own, quantity=quantity), "delay", look)
        at_delay = select(own, delay=delay)
        _draw(grid[1, 0], select(at_delay, quantity="exponent", stage="trained"), "x", look)
        _draw(grid[1, 1], select(at_delay, quantity="leading_exponent"), "x", look)
    flossed = select(summary, condition=list(conditions)[-1], delay=delay, quantity="exponent")
    for stage, look in (("drawn", DRAWN), ("flossed", FLOSSED)):
        _draw(grid[1, 0], select(flossed, stage=stage), "x", look)
    chance = select(summary, quantity="chance_level")["mean"].iloc[0]
    grid[0, 0].axhline(chance, color="0.6", linewidth=0.7, zorder=0)
    _label(grid, delays, delay)
    handles, labels = grid[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, handlelength=3, columnspacing=1.2)
    return figure


def _label(grid, delays: list[int], delay: int) -> None:
    texts = (
        ("delay d [steps]", "test accuracy"),
        ("delay d [steps]", "share of seeds that solve it"),
        ("index $i$", "$λ_i$ [nats/step]"),
        ("updates by the loss (< 0: flossing)", "leading exponent $λ_1$ [nats/step]"),
    )
    for place, (axes, (x_label, y_label)) in enumerate(zip(grid.flat, texts, strict=True)):
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        letter(axes, "abcd"[place])
    for axes in grid[0]:
        axes.set_xticks(delays)
    for axes in grid[1]:
        zero_line(axes)
        axes.set_title(f"d = {delay}", loc="left", fontstyle="italic")
    grid[0, 1].set_ylim(-0.05, 1.05)


def _draw(axes: Axes, curve: pd.DataFrame, x: str, look: Look) -> None:
    """Draw rows of a summary as a line with a band of their errors."""
    places, mean, error = (curve[column].to_numpy(float) for column in (x, "mean", "error"))
    every = None if len(places) < 10 else 0.12
    axes.plot(
        places, mean, color=look.color, linestyle=look.dash, marker=look.marker, markevery=every, label=look.label
    )
    axes.fill_between(places, mean - error, mean + error, color=look.color, alpha=0.2, linewidth=0)
