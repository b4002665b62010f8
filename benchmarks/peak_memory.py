"""Peak memory and time of one run of a compiled function, in a process of its own: the peak is one of its process."""

import json
import resource
import subprocess
import sys
import time
from typing import Any


def measured_in_a_process(module: str, *arguments: Any) -> dict[str, Any]:
    """Run a benchmark's module with arguments, with which it prints one row as JSON.

    Args:
        module: its name in `benchmarks`.
        *arguments: what tells the row from others.

    Returns:
        The row.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_run(function: Any, *arguments: Any) -> dict[str, float]:
    """Compile a jitted function, run it once, and read this process's peak resident memory and the clock.

    Args:
        function: made by `jax.jit`.
        *arguments: of the function.

    Returns:
        peak_mebibytes; grown_in_the_run, by which it is above the peak until then; seconds; compile_seconds.
    """
    import jax

    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - start
    before = _peak_mebibytes()
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    seconds = time.perf_counter() - start
    after = _peak_mebibytes()
    return {
        "peak_mebibytes": after,
        "grown_in_the_run": after - before,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
    }


def _peak_mebibytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
