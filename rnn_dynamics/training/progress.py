"""The progress of a training on a terminal: loss, metric and leading Lyapunov exponent."""

import sys
from typing import Any

import numpy as np

from rnn_dynamics.training.run import News


class ProgressBar:
    """A watcher that keeps one line up to date, or writes one at the end of a training where there is no terminal.

    Use it as a context: `with ProgressBar() as bar: train(..., watchers=[bar])`. Of an ensemble it shows medians over
    the members that still train.

    Args:
        name: what is trained.
        stream: a text file to write to (default: stderr).
    """

    def __init__(self, name: str = "training", stream: Any = None):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        stream = sys.stderr if stream is None else stream
        name_column, told_column = TextColumn("{task.description}"), TextColumn("{task.fields[told]}")
        columns = (name_column, BarColumn(), MofNCompleteColumn(), told_column, TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(file=stream))
        self._task = self._bar.add_task(name, total=None, told="")
        self._metric: str | None = None
        self._exponent: str | None = None

    def __enter__(self) -> "ProgressBar":
        """Show the line."""
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Leave the line as it is."""
        self._bar.stop()

    def __call__(self, news: News) -> None:
        """Take what is new."""
        if news.metric is not None:
            self._metric = f"metric {_middle(news.metric):.4g}"
        leading = [told["mean"][..., 0] for name, told in news.probed.items() if name == "exponents"]
        if leading:
            self._exponent = f"λ₁ {_middle(leading[0]):+.3f}"
        loss = f"loss {_middle(news.series['loss'][-1]):.4g}" if len(news.series.get("loss", ())) else None
        told = ", ".join(part for part in (loss, self._metric, self._exponent) if part is not None)
        self._bar.update(self._task, completed=news.made, total=news.steps, told=told)


def _middle(values: Any) -> float:
    values = np.asarray(values, float)
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
