"""A training from its first batch, or from its last checkpoint, to its end."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.training.checkpoints import FINGERPRINT, Arrays, CheckpointError, Checkpoints, CheckpointStore
from rnn_dynamics.training.clipping import clip_report, clip_states
from rnn_dynamics.training.probe_history import ProbeHistory
from rnn_dynamics.training.program import Program
from rnn_dynamics.training.record import TrainingRecord
from rnn_dynamics.training.truncation import position_of
from rnn_dynamics.training.update import TrainState
from rnn_dynamics.types import Batch

CHECK_EVERY = 50
"""Batches between two looks at the losses by the host: often enough to stop soon, rarely enough not to wait."""


@dataclasses.dataclass(frozen=True)
class News:
    """What a training has to tell since it last did, or at the start of one that has ended already.

    Attributes:
        made: batches seen.
        steps: of them in all.
        series: name -> [new] or [new, E], of the latest batches.
        metric: of an evaluation at this batch, [] or [E]; None where there was none.
        probed: probe -> quantity -> array, of the measurements at this batch.
    """

    made: int
    steps: int
    series: Mapping[str, np.ndarray]
    metric: np.ndarray | None
    probed: Mapping[str, Mapping[str, np.ndarray]]


Watcher: TypeAlias = Callable[[News], None]


class _Log:
    """What is recorded so far."""

    def __init__(self, probes: ProbeHistory) -> None:
        self.made = 0
        self.series: dict[str, list[np.ndarray]] = {}
        self.evaluated: list[int] = []
        self.metric: list[np.ndarray] = []
        self.probes = probes
        self._waiting: list[dict[str, Any]] = []

    def note(self, measured: dict[str, Any]) -> None:
        """Take what an update measured, without waiting for it."""
        self._waiting.append(measured)
        self.made += 1

    def fetch(self) -> dict[str, np.ndarray]:
        """Bring what is on the device to the host; return what is new."""
        waiting, self._waiting = jax.device_get(self._waiting), []
        new = {name: np.stack([measured[name] for measured in waiting]) for name in (waiting[0] if waiting else {})}
        for name, values in new.items():
            self.series.setdefault(name, []).append(values)
        return new

    def joined(self) -> dict[str, np.ndarray]:
        """Return the series whole."""
        return {name: np.concatenate(parts) for name, parts in self.series.items()}

    def to_arrays(self) -> Arrays:
        """Return all of it as arrays, for a checkpoint."""
        evaluations = {"evaluated": np.array(self.evaluated, int), "metric": np.array(self.metric)}
        probes = {name.replace("/", "."): array for name, array in self.probes.to_arrays().items()}
        return {"series": self.joined(), "evaluations": evaluations, "probes": probes}

    def restore(self, made: int, arrays: Arrays) -> None:
        """Go back to what a checkpoint holds."""
        self.made = made
        self.series = {name: [values] for name, values in arrays.get("series", {}).items()}
        evaluations = arrays.get("evaluations", {})
        self.evaluated = [int(step) for step in evaluations.get("evaluated", ())]
        self.metric = list(evaluations.get("metric", ()))
        probed = arrays.get("probes", {})
        self.probes.restore({name.replace(".", "/"): array for name, array in probed.items()})


def run(
    program: Program,
    state: TrainState,
    probes: ProbeHistory,
    checkpoints: Checkpoints | None,
    watchers: Sequence[Watcher],
) -> tuple[TrainState, TrainingRecord]:
    """Train until the end, until the task is solved where that ends it, or until every network has broken.

    Args:
        program: what is computed.
        state: before the first update; its memory is taken over.
        probes: what is measured meanwhile, and where it is kept.
        checkpoints: where and how often to save; None saves nothing.
        watchers: called every `CHECK_EVERY` batches, and whenever something is evaluated, probed or saved.

    Returns:
        The state in the end, and the record.
    """
    with nullcontext() if checkpoints is None else checkpoints.opened() as store:
        training = _Training(program, state, probes, store)
        every = None if checkpoints is None else checkpoints.every
        training.run(every, watchers)
    return training.state, training.record()


class Clock:
    """The probes' share of the time once all is compiled: from the end of the second probing to the end of the last."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lasted: list[float] = []

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        yield
        self._ends.append(time.perf_counter())
        self._lasted.append(self._ends[-1] - start)

    def share(self) -> float:
        """Return the share, NaN where there have been less than three probings."""
        # Probes are compiled at the first one, and the first updates between it and the second.
        return sum(self._lasted[2:]) / (self._ends[-1] - self._ends[1]) if len(self._ends) > 2 else math.nan


class _Training:
    def __init__(
        self, program: Program, state: TrainState, probes: ProbeHistory, store: CheckpointStore | None
    ) -> None:
        self.program, self.state, self.store = program, state, store
        self.probes = list(probes.probes.values())
        self.clock = Clock()
        self.log = _Log(probes)
        self.batches = program.batches()
        self.settings: dict[str, Any] = {}
        if store is not None:
            self.settings = self._settings()
            self._go_on_from(store)

    def _go_on_from(self, store: CheckpointStore) -> None:
        saved, steps = store.latest(self.settings), self.program.config.steps
        if saved is None:
            return
        if saved.step > steps:
            raise CheckpointError(
                f"{store.folder} holds a checkpoint of {saved.step} batches, more than the {steps} steps asked for: "
                "take another folder, or remove it"
            )
        self.state = _unnamed(self.state, saved.arrays["state"])
        self.log.restore(saved.step, saved.arrays)
        self.batches = _from(self.batches, saved.step, saved.position)

    def _settings(self) -> dict[str, Any]:
        """Return what tells this training from others, from what it starts from on."""
        shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in _named(self.state).items()}
        probes = {f"probe {probe.name}": f"{_fingerprint(vars(probe))} every {probe.every}" for probe in self.probes}
        start = _fingerprint([_named(self.state), self.program.first_step(self.state)])
        return {**self.program.settings(), **shapes, "probes": list(probes), **probes, FINGERPRINT: start}

    def run(self, save_every: int | None, watchers: Sequence[Watcher]) -> None:
        config = self.program.config
        saved = self.log.made
        if self.log.made == 0:
            self._probe()
        if self.log.made == config.steps or self._stopped():
            self._tell(watchers, {}, None, {})
        while self.log.made < config.steps and not self._stopped():
            until = min(self._next_stop(save_every), config.steps)
            for batch in islice(self.batches, until - self.log.made):
                self.state, measured = self.program.advance(self.state, batch)
                self.log.note(measured)
            if self.log.made < until:
                raise ValueError(
                    f"the task must yield a batch for every one of {config.steps} steps, it ended after {self.log.made}"
                )
            series = self.log.fetch()
            metric, probed = None, {}
            if not self._stopped():
                metric = self._evaluate() if _due(self.log.made, config.evaluate_every) else None
                probed = self._probe()
            if save_every is not None and (_due(self.log.made, save_every) or self._stopped()):
                self._save()
                saved = self.log.made
            self._tell(watchers, series, metric, probed)
        if save_every is not None and saved != self.log.made:
            self._save()

    def _tell(self, watchers: Sequence[Watcher], series: Any, metric: Any, probed: Any) -> None:
        for watcher in watchers:
            watcher(News(self.log.made, self.program.config.steps, series, metric, probed))

    def _next_stop(self, save_every: int | None) -> int:
        """Return the number of batches after which there is something to do besides updates."""
        intervals = [CHECK_EVERY, save_every, self.program.config.evaluate_every, *(p.every for p in self.probes)]
        return min((self.log.made // every + 1) * every for every in intervals if every is not None)

    def _stopped(self) -> bool:
        return bool(np.all(self.state.stopped))

    def _evaluate(self) -> np.ndarray:
        metric = self.program.evaluate(self.state)
        self.log.evaluated.append(self.log.made)
        self.log.metric.append(metric)
        if self.program.config.stop_when_solved:
            says: Any = self.program.task  # `train` has seen that it can
            solved = np.vectorize(says.solved, otypes=[bool])(metric) & ~np.asarray(self.state.stopped)
            step = jnp.where(solved, self.log.made, self.state.solved_step).astype(jnp.int32)
            self.state = self.state._replace(solved_step=step)
        return metric

    def _probe(self) -> dict[str, Any]:
        due = [probe for probe in self.probes if self.log.made % probe.every == 0]
        if not due:
            return {}
        jax.block_until_ready(self.state.learned)  # for the clock, which would count updates that are still waiting
        with self.clock.probing():
            told = {probe.name: self.program.ask(self.state, probe.measure) for probe in due}
        self.log.probes.append(self.log.made, told)
        return told

    def _save(self) -> None:
        assert self.store is not None
        position = position_of(self.batches)
        arrays = {"state": _named(self.state), **self.log.to_arrays()}
        self.store.save(self.log.made, arrays, self.settings, position)

    def record(self) -> TrainingRecord:
        series, state = self.log.joined(), jax.device_get(self.state._replace(key=None))
        stops = np.where(state.broken_step >= 0, state.broken_step + 1, self.log.made)
        last = int(np.max(np.where(state.solved_step >= 0, state.solved_step, stops)))
        clippings = clip_states(state.optimizer_state)
        return TrainingRecord(
            {name: values[:last] for name, values in series.items()},
            np.array(self.log.evaluated, int),
            np.array(self.log.metric),
            state.broken_step,
            state.solved_step,
            clip_report(clippings[0]) if clippings else None,
            self.log.probes,
            self.clock.share(),
        )


def _due(made: int, every: int | None) -> bool:
    return every is not None and made % every == 0


def _from(batches: Iterator[Batch], made: int, position: Any) -> Iterator[Batch]:
    """Return the batches after the first `made`; an iterator whose state cannot be set reads those again."""
    if position is not None:
        batches.set_state(position)  # pyright: ignore[reportAttributeAccessIssue]
        return batches
    return islice(batches, made, None)


def _named(state: TrainState) -> dict[str, np.ndarray]:
    """Name the arrays of a state by their paths; random keys as the numbers that they are made of."""
    arrays = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        # A copy, for the next update takes the state's memory over while this is still being written.
        arrays[jax.tree_util.keystr(path, simple=True, separator=".")] = np.array(leaf)
    return arrays


def _unnamed(like: TrainState, arrays: Mapping[str, np.ndarray]) -> TrainState:
    """Put a state together again."""

    def leaf(path: Any, old: Any) -> Any:
        new = jnp.asarray(arrays[jax.tree_util.keystr(path, simple=True, separator=".")])
        if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old))
        return new

    return jax.tree.map_with_path(leaf, like)


def _fingerprint(content: Any) -> str:
    """Hash arrays and plain values; of what is neither, such as a function, its name."""
    total = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(content):
        total.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, jax.Array | np.ndarray | np.generic):
            total.update(np.ascontiguousarray(leaf).tobytes())
        elif isinstance(leaf, bool | int | float | str):
            total.update(repr(leaf).encode())
        else:
            total.update(getattr(leaf, "__qualname__", type(leaf).__qualname__).encode())
    return total.hexdigest()[:8]
