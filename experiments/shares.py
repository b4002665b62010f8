"""Compute points, each device its share of them, and write every one as soon as it is finished."""

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.processes import Together, is_first
from rnn_dynamics.results import Provenance, save
from rnn_dynamics.types import Device


@contextmanager
def numerics() -> Iterator[None]:
    """Compute in double precision, matrix products included: exponents are small differences of large sums."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def compute(
    experiment: ModuleType,
    pending: Mapping[Path, Any],
    provenance_of: Callable[[Any], Provenance],
    *,
    devices: Sequence[Device],
    peers: Together,
) -> None:
    """Compute this process's share of the points: every one of D devices takes every D-th of them.

    Several devices of one process work in a thread each. If one fails, or is interrupted, the others finish the points
    that they are at.

    Args:
        experiment: the module.
        pending: file -> point, in the same order in all processes.
        provenance_of: what makes a point.
        devices: of all processes, in the same order in all.
        peers: the processes.
    """
    own = [number for number, device in enumerate(devices) if device.process_index == jax.process_index()]
    shares = {devices[number]: list(pending.items())[number :: len(devices)] for number in own}
    stopped = threading.Event()
    with _progress() as progress:
        task = progress.add_task(experiment.__name__.rpartition(".")[2], total=sum(map(len, shares.values())))

        def work(device: Device) -> None:
            with jax.default_device(device), numerics():
                for path, point in shares[device]:
                    if stopped.is_set():
                        return
                    peers.check()
                    _write(experiment, path, point, provenance_of(point))
                    progress.advance(task)

        if len(shares) == 1:  # in the main thread, which Ctrl-C reaches at once
            work(*shares)
            return
        with ThreadPoolExecutor(max(len(shares), 1)) as pool:
            try:
                for finished in as_completed([pool.submit(partial(work, device)) for device in shares]):
                    finished.result()
            finally:
                stopped.set()


def unfinished_folder(path: Path) -> Path:
    """Return where an experiment keeps what it has of a point, such as checkpoints, until the point is written."""
    return path.parent / "unfinished" / path.stem


def _write(experiment: ModuleType, path: Path, point: Any, provenance: Provenance) -> None:
    start, unfinished = time.monotonic(), unfinished_folder(path)
    keeps_some = "unfinished" in signature(experiment.run).parameters
    try:
        dataset = experiment.run(point, unfinished=unfinished) if keeps_some else experiment.run(point)
        with _interrupt_held_back():
            save(path, dataset, provenance, seconds=time.monotonic() - start)
        shutil.rmtree(unfinished, ignore_errors=True)
    except (ValueError, ArithmeticError) as error:
        error.add_note(f"at the point {path.stem}")
        raise


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not (sys.stderr.isatty() and is_first()),
        transient=True,
        # Rich forgets after 30 s by default, and then cannot tell the time left where one point takes longer.
        speed_estimate_period=24 * 3600.0,
    )


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, so that it never parts a data file from its sidecar."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C reaches only the main thread, and only there may its handler be changed
        return
    received = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        signal.raise_signal(signal.SIGINT)
