"""torch's recurrent layers, timed in a process of their own: its threads and XLA's, in one process, stop each other."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

THREADS = 2

_layer: Any = None
_inputs: Any = None


@contextmanager
def serve(
    name: str, batch: int, steps: int, in_features: int, hidden_features: int
) -> Iterator[dict[str, Callable[[], float]]]:
    """Hold a layer, and inputs [T, B, F] drawn once, in a process of their own.

    Args:
        name: "LSTM" or "GRU".
        batch: B.
        steps: T.
        in_features: F.
        hidden_features: H.

    Yields:
        "forward" and "forward and backward" -> function that has the process make such a pass, and waits for it.
    """
    passes = {"forward": _forward, "forward and backward": _forward_and_backward}
    shape = (batch, steps, in_features, hidden_features)
    with ProcessPoolExecutor(1, get_context("spawn"), _build, (name, *shape)) as pool:
        yield {label: partial(_wait_for, pool, function) for label, function in passes.items()}


def _wait_for(pool: ProcessPoolExecutor, function: Callable[[], float]) -> float:
    return pool.submit(function).result()


def _build(name: str, batch: int, steps: int, in_features: int, hidden_features: int) -> None:
    global _layer, _inputs
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(THREADS)
    _layer = getattr(torch.nn, name)(in_features, hidden_features)
    _inputs = torch.randn(steps, batch, in_features)


def _forward() -> float:
    import torch  # pyright: ignore[reportMissingImports]

    with torch.no_grad():
        return float(_layer(_inputs)[0][-1, 0, 0])


def _forward_and_backward() -> float:
    _layer.zero_grad()
    loss = (_layer(_inputs)[0] ** 2).mean()
    loss.backward()
    return float(loss.detach())
