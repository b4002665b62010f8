"""Find what a package holds by looking at its modules, so that adding a thing is adding a file."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


def discover(package: str, accept: Callable[[Any], bool]) -> dict[str, Any]:
    """Collect the public objects that the modules of a package define.

    Args:
        package: dotted name of an imported package.
        accept: says of an object whether it belongs in the list.

    Returns:
        Name -> object, in alphabetical order of the modules and then of their definitions.
    """
    found: dict[str, Any] = {}
    for module_info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{module_info.name}")
        for name, item in vars(module).items():
            if not name.startswith("_") and getattr(item, "__module__", None) == module.__name__ and accept(item):
                found[name] = item
    return found


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Word the one sentence that every look-up by name fails with.

    Args:
        kind: what was looked up, e.g. "cell".
        name: what came.
        known: what is allowed.

    Returns:
        The sentence, with the nearest names first where some are near.
    """
    known = sorted(known)
    near = get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}"
