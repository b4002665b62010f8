"""What a training tells, written for TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.results import prepare_folder
from rnn_dynamics.training.run import News


class TensorBoardWriter:
    """A watcher that writes every number for TensorBoard: `tensorboard --logdir FOLDER`.

    Use it as a context: `with TensorBoardWriter(folder) as board: train(..., watchers=[board])`. Tags are the names of
    the series ("loss", "gradient_norm", ...), "metric", and PROBE/QUANTITY, with /NUMBER for what is not one number and
    for each member of an ensemble. The step of a loss is the number of batches seen before it, as in
    `TrainingRecord.series`. What is not finite, such as a reach beyond the largest lag, is left out. A training that
    goes on from a checkpoint replaces what was written after it.

    Args:
        folder: of this one training.

    Raises:
        UnwritableFolder: if it cannot be written in.
        ModuleNotFoundError: where tensorboardX is not installed, with what to do.
    """

    def __init__(self, folder: Path | str):
        try:
            import tensorboardX
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TensorBoardWriter needs tensorboardX: pip install 'rnn_dynamics[tensorboard]'"
            ) from error
        prepare_folder(Path(folder))
        self._make = tensorboardX.SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None

    def __enter__(self) -> "TensorBoardWriter":
        """Return itself; files are opened with the first news, which tell from which batch on."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Write all, and close."""
        if self._writer is not None:
            self._writer.close()

    def __call__(self, news: News) -> None:
        """Write what is new."""
        new = max((len(values) for values in news.series.values()), default=0)
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=news.made - new + 1)
        for name, values in news.series.items():
            for step, value in enumerate(values, news.made - new):
                self._write(name, value, step)
        if news.metric is not None:
            self._write("metric", news.metric, news.made)
        for probe, quantities in news.probed.items():
            for quantity, value in quantities.items():
                self._write(f"{probe}/{quantity}", value, news.made)

    def _write(self, tag: str, value: Any, step: int) -> None:
        value = np.asarray(value, float)
        for place in np.ndindex(value.shape):
            if np.isfinite(value[place]):
                self._writer.add_scalar("/".join([tag, *map(str, place)]), value[place], step)
