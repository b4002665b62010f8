"""Training carries gradients back to the first step: every network's Jacobians move towards neutral growth.

Claim: for every network lambda_1 < 0 rises towards 0 with training, and the loss gradient at the first time step grows
by orders of magnitude.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figures.style import TEXT_WIDTH, add_legend, draw_curve, end_handle, letter, zero_line
from paper_figures.summaries import select

STAGES = {"before": "before training", "after": "after training"}

PANELS = (
    ("log_norm", "horizon τ [steps]", r"ln $\Vert J_{t+τ} \cdots J_{t+1} \Vert_2$ [nats]"),
    ("exponent", "index $i/N$", r"$λ_i$ [nats/step]"),
    ("log_gradient_norm", "lag τ [steps]", r"ln $\Vert \partial s_t / \partial s_{t-τ} \Vert_F / \sqrt{N}$ [nats]"),
    ("log10_loss_gradient", "time step t", r"$\log_{10} \Vert \partial \ell / \partial s_t \Vert$"),
)
"""Quantity of the summary, label of its x axis, label of its y axis."""


def draw(summary: pd.DataFrame) -> Figure:
    """Draw the figure: a row before and a row after training, a column for each quantity.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(TEXT_WIDTH, 4.3), layout="constrained")
    grid = figure.subplots(2, len(PANELS), sharex="col", sharey="col")
    for row, (stage, title) in enumerate(STAGES.items()):
        for column, (quantity, x_label, y_label) in enumerate(PANELS):
            axes: Axes = grid[row, column]
            chosen = select(summary, stage=stage, quantity=quantity)
            for network in chosen["network"].unique():
                draw_curve(axes, network, select(chosen, network=network))
            if quantity != "log10_loss_gradient":
                zero_line(axes)
            axes.set_ylabel(y_label)
            if row == 1:
                axes.set_xlabel(x_label)
            letter(axes, "abcdefgh"[len(PANELS) * row + column])
        grid[row, 0].set_title(title, loc="left", fontstyle="italic")
    _limit(grid, summary)
    add_legend(figure, grid[1, 0], {"beyond: exactly 0, ln = −∞": end_handle()})
    return figure


def _limit(grid, summary: pd.DataFrame) -> None:
    """Set scales: where curves run off to minus infinity, show the part in which they differ."""
    grid[0, 0].set_xscale("log", base=2)
    grid[0, 0].set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    grid[0, 1].set_ylim(bottom=max(-4, select(summary, quantity="exponent")["mean"].min()))
    grid[0, 2].set_xlim(0, 64)
    grid[0, 2].set_ylim(-20, 2)
    grid[0, 3].set_xticks([1, 16, 32, 48, 64])
