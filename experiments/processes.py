"""Several processes, on one machine or many, that share the points of one grid.

They talk only through the coordinator that `jax.distributed` starts: what is to be computed, and who has ended how. So
nobody waits inside a computation, however long the others take, and a failure has a message that all can repeat.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import distributed  # jax has no public name for its coordinator's store, which Orbax uses too

FOREVER = 10**9
"""Milliseconds; eleven days."""

_runs = itertools.count()


class ProcessFailed(ValueError):
    """Another process has failed; the message says which, and why."""


def join() -> None:
    """Make this one of the processes of a cluster, as jax finds it: SLURM, Open MPI, Kubernetes, a TPU pod.

    Raises:
        ValueError: if there is no cluster that jax knows, or its coordinator does not answer.
    """
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--distributed needs processes started by SLURM, Open MPI, Kubernetes or as a TPU pod: {reason}"
        ) from error


def is_first() -> bool:
    """Tell whether this is the process that speaks, locks and records the run."""
    return jax.process_index() == 0


@dataclass(frozen=True)
class Together:
    """What the processes of one run say to each other; every one says nothing twice.

    Attributes:
        run: number of the run, equal in all processes.
    """

    run: int

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Let the first process decide, and return in all what it returned: anything that JSON holds but null.

        Raises:
            ProcessFailed: in the others, if the first one failed before.
        """
        if jax.process_count() == 1:
            return decide()
        if is_first():
            decided = decide()
            self._say("decided", json.dumps(decided))
            return decided
        decided = json.loads(self._hear("decided"))
        if decided is None:
            raise ProcessFailed(_failure(0, self._hear("ended/0")))
        return decided

    def check(self) -> None:
        """Look whether a process has failed, without waiting.

        Raises:
            ProcessFailed: if one has.
        """
        if jax.process_count() == 1:
            return
        for name, reason in _store().key_value_dir_get(self._key("ended/")):
            if reason:
                raise ProcessFailed(_failure(int(name.rpartition("/")[2]), reason))

    def end(self, reason: str) -> None:
        """Say how this process has ended, "" for well, and wait for the others.

        Raises:
            ProcessFailed: if one of them has failed.
        """
        if is_first() and reason:
            self._say("decided", "null", overwrite=True)
        self._say(f"ended/{jax.process_index()}", reason)
        # All are heard first: jax takes a process that is gone for a broken cluster, and ends those at work.
        for process, said in enumerate([self._hear(f"ended/{process}") for process in range(jax.process_count())]):
            if said:
                raise ProcessFailed(_failure(process, said))

    def _key(self, name: str) -> str:
        return f"rnn_dynamics/{self.run}/{name}"

    def _say(self, name: str, what: str, *, overwrite: bool = False) -> None:
        _store().key_value_set(self._key(name), what, allow_overwrite=overwrite)

    def _hear(self, name: str) -> str:
        return _store().blocking_key_value_get(self._key(name), FOREVER)


@contextmanager
def together() -> Iterator[Together]:
    """Run a block in all processes: it ends once it has ended in all, and fails in all if it fails in one.

    Yields:
        What the block talks to the others by.

    Raises:
        ProcessFailed: if it failed in another process.
    """
    peers = Together(next(_runs))
    try:
        yield peers
    except Exception as error:
        if jax.process_count() > 1:
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
            reason = f"{str(error) or type(error).__name__}{notes}"
            with suppress(ProcessFailed):
                peers.end("" if isinstance(error, ProcessFailed) else reason)
        raise
    if jax.process_count() > 1:
        peers.end("")


def _store() -> Any:
    return distributed.global_state.client


def _failure(process: int, reason: str) -> str:
    return f"process {process} failed and ended the run, whose finished points are kept: {reason}"
