"""Fill a grid of points: compute what is not on disk yet, one whole file after the other.

    RESULTS/EXPERIMENT/SLUG-HASH8.nc      one point, with its sidecar SLUG-HASH8.json (see `rnn_dynamics.results`)
    RESULTS/EXPERIMENT/runs/PRESET.json   the manifest of a finished run: its settings, and its points in grid order
    RESULTS/EXPERIMENT/unfinished/SLUG-HASH8/  checkpoints of a point that is being computed; gone when it is written
    RESULTS/EXPERIMENT/.lock              held by the one process that writes there; gone with it, however it ends

The hash is of the point's fields and of nothing else. A run that is killed therefore goes on where it stopped, and a
repeated one only verifies. The version of the code is recorded but not hashed: results made by another version are
reused, and counted in the summary.

Devices share the points, one thread for each device, and so do processes: each writes the points that it has computed.
The first process alone decides what is to be computed, holds the lock and records the run.
"""

import importlib
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, get_type_hints

import jax
from filelock import FileLock, Timeout

from experiments.processes import is_first, together
from experiments.shares import compute, numerics, unfinished_folder
from rnn_dynamics.devices import first_devices
from rnn_dynamics.results import (
    CorruptResult,
    Provenance,
    code_version,
    config_hash,
    load,
    prepare_folder,
    read_provenance,
    remove_partials,
    save_manifest,
)

SEEDS = range(2**63)
"""What jax.random.key takes."""

SLUG_LENGTH = 120
"""Longest legible part of a file name; file systems allow 255 bytes, and temporary names are longer than final ones."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        folder: the folder of the experiment.
        run: name of the run, its preset or custom-HASH.
        paths: data files of the points, in the order of the grid.
        computed: points that were not there before.
        recomputed: points whose file was corrupt, or that were to be computed afresh.
        reused: points that were there and whole.
        foreign: those among the reused that another version of the code made.
        seconds: duration of the whole run.
    """

    folder: Path
    run: str
    paths: list[Path]
    computed: int
    recomputed: int
    reused: int
    foreign: int
    seconds: float

    def __str__(self) -> str:
        """Word the summary line."""
        foreign = f" ({self.foreign} by another version of the code)" if self.foreign else ""
        counts = f"{self.computed} computed, {self.reused} reused{foreign}, {self.recomputed} recomputed"
        return f"{self.folder.name}: {counts} in {self.seconds:.1f} s, in {self.folder}, run {self.run}"


def run(
    experiment: str | ModuleType, config: Any, *, results: Path = Path("results"), fresh: bool = False
) -> list[Path]:
    """Fill the grid of a configuration, and say where its points are.

    Args:
        experiment: name of a module in `experiments`, or the module.
        config: the experiment's `Config`, one of its presets for example.
        results: folder of all experiments' results.
        fresh: compute also what is there.

    Returns:
        The data file of each point, in the order of the grid.
    """
    module = load_experiment(f"experiments.{experiment}") if isinstance(experiment, str) else experiment
    return fill(module, config, results=results, fresh=fresh).paths


def load_experiment(name: str) -> ModuleType:
    """Import an experiment, by its dotted name, under the precision that it will run with."""
    with numerics():
        return importlib.import_module(name)


def fill(
    experiment: ModuleType, config: Any, *, results: Path, fresh: bool = False, devices: int | None = None
) -> Outcome:
    """Compute the points of a grid that are not on disk, then record the run.

    Waits while another run fills the same folder. Says on stderr which files were corrupt.

    Args:
        experiment: the module.
        config: its `Config`.
        results: folder of all experiments' results, the same one for all processes.
        fresh: compute also what is there.
        devices: how many share the points, of all processes together (default: all).

    Returns:
        What was done.

    Raises:
        UnwritableFolder: if the results cannot be written; nothing was computed then.
        ProcessFailed: if another process has failed.
        ValueError: if a setting fits no experiment, the grid is empty, the library refuses a point, or there are fewer
            devices.
    """
    start = time.monotonic()
    _check(config)
    chosen = first_devices(devices)
    name = experiment.__name__.rpartition(".")[2]
    folder = results / name
    # Nobody leaves before the first process has recorded the run, nor waits for it once it has failed.
    with together() as peers, numerics():
        prepare_folder(folder)
        # A dict, because overlapping tuples in a config give the same point twice.
        points = {folder / f"{point_name(point)}.nc": _as_declared(point) for point in experiment.grid(config)}
        if not points:
            raise ValueError(f"the grid of {name} is empty: {_what_is_empty(config)}")
        with _sole_writer(folder) if is_first() else nullcontext():
            plan = _Plan(**peers.agree(lambda: asdict(_plan(folder, points, fresh))))
            pending = {folder / file_name: points[folder / file_name] for file_name in plan.pending}
            with together() as workers:
                compute(experiment, pending, _provenance_by(name), devices=chosen, peers=workers)
            if is_first():
                _check_shared(pending)
                for run_name in _run_names(experiment, config):
                    save_manifest(folder / "runs" / f"{run_name}.json", name, asdict(config), points)
    return Outcome(
        folder=folder,
        run=_run_names(experiment, config)[0],
        paths=list(points),
        computed=len(pending) - plan.recomputed,
        recomputed=plan.recomputed,
        reused=len(points) - len(pending),
        foreign=plan.foreign,
        seconds=time.monotonic() - start,
    )


@dataclass(frozen=True)
class _Plan:
    """What is to be done: names of the files to compute, and the counts of `Outcome` that this does not tell."""

    pending: list[str]
    recomputed: int
    foreign: int


def _plan(folder: Path, points: Mapping[Path, Any], fresh: bool) -> _Plan:
    """Look what is there; only for whoever holds the folder's lock."""
    remove_partials(folder)
    for path in points if fresh else ():
        shutil.rmtree(unfinished_folder(path), ignore_errors=True)
    there = [path for path in points if path.exists()]
    made_by = {} if fresh else _reusable(there, points)
    for path in made_by:  # of a run that was killed just after it had written the point
        shutil.rmtree(unfinished_folder(path), ignore_errors=True)
    foreign = sum(made.code != code_version() for made in made_by.values())
    return _Plan([path.name for path in points if path not in made_by], len(there) - len(made_by), foreign)


def _provenance_by(experiment: str) -> Callable[[Any], Provenance]:
    device = jax.local_devices()[0].device_kind
    return lambda point: Provenance(experiment, settings_of(point), device, code_version())


def _check_shared(paths: Iterable[Path]) -> None:
    """Refuse to record a run whose points other processes have written elsewhere.

    Raises:
        ValueError: if a file is missing.
    """
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise ValueError(
            f"results must be a folder that all processes see: {len(missing)} points are not there, e.g. {missing[0]}; "
            "if the file system is only slow, the same command again will find them"
        )


def _check(config: Any) -> None:
    """Refuse what no experiment can use, before anything is written.

    Raises:
        ValueError: NaN, or a seed out of range.
    """
    for name, value in asdict(config).items():
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, float) and math.isnan(entry):
                raise ValueError(f"{name} must not hold nan, got {value}")
            if "seed" in name and isinstance(entry, int) and entry not in SEEDS:
                raise ValueError(f"{name} must lie in 0 ... 2**63 - 1, got {entry}")


def _what_is_empty(config: Any) -> str:
    empty = [name for name, value in asdict(config).items() if value == ()]
    return f"{' and '.join(empty)} must hold at least one value, got none" if empty else str(config)


def point_name(point: Any) -> str:
    """Name a point: its values, legible, and eight digits of the hash of its fields, which tell points apart.

    Args:
        point: a dataclass of scalars.

    Returns:
        The stem of its file names, e.g. "gru-tanh-gain1.5-seed0-1b2c3d4e".
    """
    settings = settings_of(point)
    words = (value if isinstance(value, str) else f"{name}{value}" for name, value in settings.items())
    slug = re.sub(r"[^\w.+-]+", "_", "-".join(words), flags=re.ASCII).lstrip(".")[:SLUG_LENGTH]
    return f"{slug}-{config_hash(settings)[:8]}"


def settings_of(point: Any) -> dict[str, Any]:
    """List the fields of a point, in the form that is hashed and stored.

    Args:
        point: a dataclass of scalars.

    Returns:
        Field -> value, whole numbers in float fields as floats.

    Raises:
        ValueError: if a field holds anything but a number, a string, a bool or None.
    """
    settings = asdict(_as_declared(point))
    for name, value in settings.items():
        if not isinstance(value, bool | int | float | str | NoneType):
            kind = type(value).__name__
            raise ValueError(f"field {name!r} of {type(point).__name__} is a {kind}: points are made of plain scalars")
    return settings


def _as_declared(point: Any) -> Any:
    # 1 and 1.0 are the same gain: they have to share a hash, and to reach the experiment as the same type.
    floats = [name for name, kind in get_type_hints(type(point)).items() if kind is float]
    return replace(point, **{name: float(getattr(point, name)) for name in floats if type(getattr(point, name)) is int})


def _reusable(paths: list[Path], points: Mapping[Path, Any]) -> dict[Path, Provenance]:
    """Verify files that are there; return what made the good ones, and name the others on stderr."""
    made_by = {}
    for path in paths:
        try:
            made_by[path] = _verified(path, points[path])
        except CorruptResult as error:
            print(f"{error}; computing it again", file=sys.stderr, flush=True)
    return made_by


def _verified(path: Path, point: Any) -> Provenance:
    """Return what made a file.

    Raises:
        CorruptResult: if it is not whole, or holds another point than its name says.
    """
    made = read_provenance(load(path))
    if config_hash(made.config) != config_hash(settings_of(point)):
        raise CorruptResult(f"{path} holds another point than its name says")
    return made


def _run_names(experiment: ModuleType, config: Any) -> list[str]:
    presets = [name for name, preset in experiment.PRESETS.items() if preset == config]
    return presets or [f"custom-{config_hash(asdict(config))[:8]}"]


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    # The operating system drops the lock when its holder dies, so a kill leaves nothing to clear up by hand.
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another run that is writing in {folder}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
