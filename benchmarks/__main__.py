"""Run every benchmark of this package, each in a fresh process."""

import pkgutil
import subprocess
import sys
from pathlib import Path

SHARED = {"__main__", "peak_memory", "report", "timing", "torch_layers"}

for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if module.name not in SHARED:
        subprocess.run([sys.executable, "-m", f"benchmarks.{module.name}"], check=True)
