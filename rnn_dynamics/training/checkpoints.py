"""Checkpoints of a training, by Orbax: all that its next update depends on, and all that was recorded until then."""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.results import prepare_folder

FINGERPRINT = "weights or recipe"
"""The setting that tells trainings apart where no other one does."""

Arrays = dict[str, dict[str, np.ndarray]]
"""Group -> name -> array."""


class CheckpointError(OSError):
    """A checkpoint cannot be written, cannot be read, or belongs to another training; the message says what to do."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is saved. It goes on from the latest checkpoint that is there.

    Attributes:
        folder: of this one training; made if missing.
        every: batches between two checkpoints; there is one at the end besides.
        keep: how many of the latest are kept.

    Raises:
        ValueError: every or keep < 1.
    """

    folder: Path | str
    every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            whole_number(name, getattr(self, name), least=1)

    @contextmanager
    def opened(self) -> Iterator["CheckpointStore"]:
        """Open the folder for this process alone; what is being saved is on disk when the block ends.

        Yields:
            The open folder.

        Raises:
            UnwritableFolder: if it cannot be written in.
            CheckpointError: if another training has it open, or the last checkpoint could not be written.
        """
        from filelock import FileLock, Timeout

        folder = Path(self.folder)
        prepare_folder(folder)
        try:
            with FileLock(folder / ".lock", timeout=0), _quiet():
                store = CheckpointStore(self)
                try:
                    yield store
                    store.settle()
                finally:
                    store.close()
        except Timeout:
            raise CheckpointError(f"{folder} is in use by another training") from None


@dataclass(frozen=True)
class Saved:
    """One checkpoint.

    Attributes:
        step: batches seen.
        arrays: what was saved.
        position: of the batches' iterator; None where that has none.
    """

    step: int
    arrays: Arrays
    position: Any


class CheckpointStore:
    """An open folder of checkpoints, each atomic: written under another name, and renamed when it is whole.

    Args:
        options: where, and how many.
    """

    def __init__(self, options: Checkpoints):
        import orbax.checkpoint as ocp

        self.folder = Path(options.folder)
        self._ocp = ocp
        self._saving: int | None = None
        self._manager = ocp.CheckpointManager(
            self.folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=options.keep)
        )

    def latest(self, settings: Mapping[str, Any]) -> Saved | None:
        """Read the latest checkpoint, and make sure that it is whole and of this training.

        Args:
            settings: of this training, as they were given to `save`.

        Returns:
            The checkpoint; None if there is none.

        Raises:
            CheckpointError: if it cannot be read, or its settings are others.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args
        try:
            restored = self._manager.restore(
                step, args=args.Composite(arrays=args.StandardRestore(), about=args.JsonRestore())
            )
            arrays, about = restored["arrays"], restored["about"]
            whole = about["digest"] == _digest(arrays)
        except Exception as error:  # tensorstore and Orbax raise whatever they come upon in a damaged file
            raise CheckpointError(self._unreadable(step, type(error).__name__)) from error
        if not whole:
            raise CheckpointError(self._unreadable(step, "its numbers are not those that were saved"))
        self._refuse_others(about["settings"], json.loads(json.dumps(settings)))
        return Saved(step, arrays, about["position"])

    def save(self, step: int, arrays: Arrays, settings: Mapping[str, Any], position: Any) -> None:
        """Save a checkpoint in the background, once the one before is on disk.

        Args:
            step: batches seen.
            arrays: copies, that nobody changes; groups and arrays without entries are left out.
            settings: what tells this training from others; must fit into JSON.
            position: of the batches' iterator; must fit into JSON.

        Raises:
            CheckpointError: if this one or the one before cannot be written.
        """
        self.settle()
        arrays = {group: {name: a for name, a in named.items() if a.size} for group, named in arrays.items()}
        arrays = {group: named for group, named in arrays.items() if named}
        about = {"settings": settings, "position": position, "digest": _digest(arrays)}
        args = self._ocp.args
        with self._told(step):
            self._manager.save(
                step, args=args.Composite(arrays=args.StandardSave(arrays), about=args.JsonSave(about)), force=True
            )
        self._saving = step

    def settle(self) -> None:
        """Wait until what is being saved is on disk.

        Raises:
            CheckpointError: if it cannot be written.
        """
        if self._saving is not None:
            step, self._saving = self._saving, None
            with self._told(step):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Release the folder."""
        try:
            self._manager.close()
        except Exception as error:  # of a save in the background, which `settle` tells of where nothing else failed
            logging.getLogger(__name__).warning("a checkpoint in %s was not finished: %s", self.folder, error)

    @contextmanager
    def _told(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore's errors are ValueErrors, Orbax's of many kinds
            before = [known for known in self._manager.all_steps(read=True) if known != step]
            intact = f"that of step {max(before)} is intact" if before else "there is none before it"
            sentence = f"the checkpoint of step {step} cannot be written in {self.folder} ({_reason(error)}); {intact}"
            raise CheckpointError(sentence) from error

    def _unreadable(self, step: int, reason: str) -> str:
        others = sorted(known for known in self._manager.all_steps() if known != step)
        way = f"go on from that of step {others[-1]}" if others else "start anew"
        return f"the checkpoint {self.folder / str(step)} cannot be read ({reason}): remove that folder to {way}"

    def _refuse_others(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if names:
            names = [name for name in names if name != FINGERPRINT] or names
            differences = ", ".join(f"{name} {theirs.get(name)} there and {ours.get(name)} here" for name in names[:3])
            raise CheckpointError(
                f"{self.folder} holds checkpoints of another training ({differences}): take another one, or remove it"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to one sentence: Orbax logs every step, and its threads print the errors that it raises here anyway."""
    logger, hook = logging.getLogger("absl"), threading.excepthook
    level = logger.level
    logger.setLevel(logging.CRITICAL)

    def unless_raised_here(thrown: threading.ExceptHookArgs) -> None:
        if not type(thrown.thread).__module__.startswith("orbax."):
            hook(thrown)

    threading.excepthook = unless_raised_here
    try:
        yield
    finally:
        threading.excepthook = hook
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Say in words why something cannot be written; tensorstore has the system's error number within its message."""
    number = re.search(r"os_error_code='(\d+)'", str(error)) or re.search(r"Errno (\d+)", str(error))
    if number:
        return os.strerror(int(number[1]))
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _digest(arrays: Arrays) -> str:
    """Hash names, shapes, types and bytes."""
    total = hashlib.sha256()
    for group in sorted(arrays):
        for name in sorted(arrays[group]):
            array = np.ascontiguousarray(arrays[group][name])
            total.update(f"{group}/{name} {array.dtype} {array.shape}".encode())
            total.update(array.tobytes())
    return total.hexdigest()
