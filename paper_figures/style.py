"""How every figure looks: sizes, fonts, and one colour, dash, marker and name for each network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

TEXT_WIDTH = 7.2
"""Inches: two columns of a journal page."""

ALL_MARKED = 10
"""The most points of a curve that are all marked; on longer ones marks lie `MARK_SPACING` apart."""

MARK_SPACING = 0.16
"""In diagonals of the panel."""

END: dict[str, Any] = {
    "marker": "x",
    "markersize": 5.5,
    "markeredgewidth": 1.5,
    "linestyle": "none",
    "path_effects": [withStroke(linewidth=3.5, foreground="white")],
}
"""How the end of a curve is marked behind which nothing is finite."""


@dataclass(frozen=True)
class Look:
    """How one network is drawn; lightness, dash and marker tell networks apart in greyscale as well.

    Attributes:
        label: in legends.
        color: of its lines.
        dash: of its lines.
        marker: of its points.
    """

    label: str
    color: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str


NETWORKS = {
    "elman-tanh": Look("Elman, tanh", "#15335c", "-", "o"),
    "elman-relu": Look("Elman, relu", "#4a9fd8", (0, (5, 1.5)), "s"),
    "lstm": Look("LSTM", "#b8301c", (0, (5, 1.2, 1.2, 1.2)), "^"),
    "gru": Look("GRU", "#f0a11b", (0, (1.6, 1.0)), "D"),
    "elman-tanh-orthogonal": Look("Elman, tanh, orthogonal", "#7a5195", (0, (3, 1, 1, 1, 1, 1)), "v"),
    "elman-relu-identity": Look("Elman, relu, identity", "#2a9d8f", (0, (8, 2)), "P"),
    "exprnn": Look("expRNN", "#6b7a1e", (0, (3, 1)), "*"),
}

SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "mathtext.fontset": "dejavusans",
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "rnn_dynamics",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in the style of the paper, whatever the user's own is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


def look(network: str) -> Look:
    """Return how a network is drawn; one without a look of its own is grey and called by its name."""
    return NETWORKS.get(network, Look(network, "#777777", "-", "x"))


def draw_curve(axes: Axes, network: str, curve: pd.DataFrame) -> None:
    """Draw a summary's rows as a line with a band of one standard error, and a cross where it stops being finite.

    Args:
        axes: where.
        network: gives colour, dash, marker and name.
        curve: rows with x, mean and error.
    """
    how = look(network)
    x, mean, error = (curve[column].to_numpy(float) for column in ("x", "mean", "error"))
    finite = np.isfinite(mean)
    mean = np.where(finite, mean, np.nan)  # a gap in the line, where there is nothing to draw
    every = None if len(x) <= ALL_MARKED else MARK_SPACING
    axes.plot(x, mean, color=how.color, linestyle=how.dash, marker=how.marker, markevery=every, label=how.label)
    axes.fill_between(x, mean - error, mean + error, color=how.color, alpha=0.2, linewidth=0)
    beside_a_gap = finite & ~(np.append(True, finite[:-1]) & np.append(finite[1:], True))
    axes.plot(x[beside_a_gap], mean[beside_a_gap], color=how.color, zorder=5, **END)


def add_legend(figure: Figure, axes: Axes, extra: dict[str, Line2D]) -> None:
    """Name the curves above all panels.

    Args:
        figure: where.
        axes: that holds all curves.
        extra: label -> handle of what else needs a name.
    """
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *extra.values()], [*labels, *extra]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), handlelength=3, columnspacing=1.5)


def end_handle() -> Line2D:
    """Return what the end of a curve is marked by, for a legend that says what lies beyond."""
    return Line2D([], [], color="0.4", **END)


def zero_line(axes: Axes) -> None:
    """Mark where gradients neither grow nor shrink."""
    axes.axhline(0, color="0.6", linewidth=0.7, zorder=0)


def letter(axes: Axes, text: str) -> None:
    """Name a panel above its upper left corner."""
    axes.text(-0.02, 1.06, text, transform=axes.transAxes, fontweight="bold", ha="right", va="bottom")
