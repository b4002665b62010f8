"""The gain sets how fast Jacobian products shrink or grow, under every input.

Claim: finite-time growth rates converge to lambda_1, to 0.05 nats per step at 1,000 steps; lambda_1 of tanh networks
rises with the gain; at small gain gated cells, the LSTM first, stay nearest to 0; relu networks of gain above sqrt(2)
overflow.
"""

from string import ascii_lowercase

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper_figures.style import TEXT_WIDTH, add_legend, draw_curve, end_handle, letter, look, zero_line
from paper_figures.summaries import select

INPUTS = {"noise": "white noise", "digits": "digits, pixels", "mnist_rows": "MNIST, rows", "imdb": "IMDB, words"}
SHOWN_GAIN = 2.0


def draw(summary: pd.DataFrame) -> Figure:
    """Draw a column for each input; above, growth rates against the horizon; below, lambda_1 against the gain.

    Args:
        summary: of the experiment of the same name.

    Returns:
        The figure.
    """
    inputs = [name for name in INPUTS if name in set(summary["inputs"])]
    figure = Figure(figsize=(TEXT_WIDTH, 4.3), layout="constrained")
    grid = figure.subplots(2, len(inputs), sharex="row", sharey="row", squeeze=False)
    shown_gain = min(summary["gain"], key=lambda gain: abs(gain - SHOWN_GAIN))
    for column, name in enumerate(inputs):
        of_input = select(summary, inputs=name)
        above, below = grid[0, column], grid[1, column]
        _growth(above, select(of_input, gain=shown_gain))
        _exponents(below, of_input)
        above.set_title(INPUTS[name])
        above.set_xlabel("horizon τ [steps]")
        below.set_xlabel("gain $g$")
        letter(above, ascii_lowercase[column])
        letter(below, ascii_lowercase[len(inputs) + column])
    grid[0, 0].set_ylabel(f"growth rate at $g={shown_gain:g}$\n" r"ln $\Vert J_τ \cdots J_1 \Vert_2$ / τ  [nats/step]")
    grid[1, 0].set_ylabel(r"$λ_1$ [nats/step]")
    hollow = Line2D([], [], color="0.4", marker="o", markerfacecolor="white", linestyle="none")
    add_legend(figure, grid[0, 0], {r"$λ_1$, at the right": hollow, "beyond: overflow": end_handle()})
    return figure


def _growth(axes: Axes, summary: pd.DataFrame) -> None:
    for network in summary["network"].unique():
        draw_curve(axes, network, select(summary, network=network, quantity="growth_rate"))
    largest = select(summary, quantity="largest_exponent").dropna(subset="mean")
    for number, (network, exponent) in enumerate(zip(largest["network"], largest["mean"], strict=True), start=1):
        how = look(network)
        axes.plot(1 + 0.04 * number, exponent, transform=axes.get_yaxis_transform(), clip_on=False, color=how.color,
                  marker=how.marker, markerfacecolor="white", linestyle="none")  # fmt: skip
    axes.set_xscale("log")
    zero_line(axes)


def _exponents(axes: Axes, summary: pd.DataFrame) -> None:
    largest = select(summary, quantity="largest_exponent").assign(x=lambda rows: rows["gain"])
    for network in largest["network"].unique():
        draw_curve(axes, network, select(largest, network=network))
    zero_line(axes)
