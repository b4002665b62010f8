"""Tables of benchmarks: on the screen, and in `tables/` with the machine and the versions that they hold for."""

import csv
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TABLES = Path(__file__).parent / "tables"
PACKAGES = ("jax", "jaxlib", "flax", "lyapax", "numpy", "scipy", "threadpoolctl", "torch")


def publish(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print a table and write NAME.csv and NAME.json.

    Args:
        name: of the benchmark.
        rows: column -> value, the same columns in each; floats are kept to four digits.
    """
    written = [{column: _shown(value) for column, value in row.items()} for row in rows]
    TABLES.mkdir(exist_ok=True)
    with (TABLES / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, written[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(written)
    (TABLES / f"{name}.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")

    table = Table(*(column.replace("_", " ") for column in written[0]), title=name.replace("_", " "))
    for row in written:
        table.add_row(*row.values())
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def environment() -> dict[str, Any]:
    """Describe the machine, the versions and the day."""
    import jax
    from threadpoolctl import threadpool_info

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "blas_threads_by_default": sorted({pool["num_threads"] for pool in threadpool_info()}),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
