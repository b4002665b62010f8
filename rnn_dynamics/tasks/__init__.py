"""Tasks: batches of sequences with a loss, a metric and a chance level. One file per task.

A task is listed because its module is here and its class carries a `name`; adding one edits nothing else. Importing
this package loads neither a data set nor a library that reads one: that happens when a task is made.
"""

from typing import Any

from rnn_dynamics.discovery import discover, unknown_name
from rnn_dynamics.types import Task

__all__ = ["TASKS", "make_task"]


def _is_task(item: Any) -> bool:
    """Tell a task from the parts that tasks share: it is a class that says how the command line spells it."""
    return isinstance(item, type) and isinstance(getattr(item, "name", None), str)


TASKS: dict[str, type] = {task.name: task for task in discover(__name__, _is_task).values()}
"""Every task class by its `name`, which is its module's name."""


def make_task(name: str, **options: Any) -> Task:
    """Make a task by its name.

    Args:
        name: a key of `TASKS`, e.g. "sequential_digits".
        **options: what that task's constructor takes.

    Returns:
        The task, its data in memory.

    Raises:
        ValueError: if there is no task of that name, or the task rejects an option or finds its data not prepared.
    """
    if name not in TASKS:
        raise ValueError(unknown_name("task", name, TASKS))
    return TASKS[name](**options)
