"""How long the first solve takes, cold and warm, process start included.

    python -m benchmarks.first_solve                             this checkout
    python -m benchmarks.first_solve --tree ../before --write    and another one beside it

Cold: a fresh process with an empty cache. Warm: a fresh process with the cache that the cold one filled. Medians
of ``--runs`` of both, trees taking turns. Run it on a quiet machine; ``--cores 2`` allows two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_name("results") / "first_solve.md"
CELLS = {
    "convex, 20 devices (fdma)": ("convex", 'devices=20, access="fdma"'),
    "bnb, (6, 32) (ofdma)": ("bnb", 'devices=6, access="ofdma", subcarriers=32'),
    "psca, (6, 32) (ofdma)": ("psca", 'devices=6, access="ofdma", subcarriers=32'),
}
SOLVE = """
import numpy as np, edgealloc
from edgealloc.scenario.cell import CellOptions, make_cell
instance = make_cell(CellOptions({cell}), np.random.default_rng(0)).instance
assert edgealloc.solve(instance, "{method}").status.has_allocation
"""


def first_solve(tree: Path, name: str, cache: str) -> float:
    """Wall-clock seconds of a process of a checkout that solves one cell."""
    method, cell = CELLS[name]
    code = SOLVE.format(cell=cell, method=method)
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join([str(tree), *_extra()])}
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{tree}: {name}: {run.stderr}")
    return time.perf_counter() - started


def _extra() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]


def measure(trees: dict[str, Path], runs: int) -> list[str]:
    """Rows of the table: state, cell, cold and warm medians in s, and the range of the cold ones."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name in CELLS:
        for _ in range(runs):
            for state, tree in trees.items():
                with tempfile.TemporaryDirectory() as cache:
                    cold = first_solve(tree, name, cache)
                    times.setdefault((name, state), []).append((cold, first_solve(tree, name, cache)))
    rows = ["| first solve | state | cold s | range | warm s |", "|---|---|---|---|---|"]
    for (name, state), pairs in times.items():
        cold, warm = zip(*pairs, strict=True)
        span = f"{min(cold):.1f} to {max(cold):.1f}"
        rows.append(
            f"| {name} | {state} | {statistics.median(cold):.1f} | {span} | {statistics.median(warm):.2f} |"
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, help="another checkout to measure as well, as `before`")
    parser.add_argument("--runs", type=int, default=5, help="fresh caches per cell and checkout")
    parser.add_argument("--cores", type=int, help="cores to use (Linux)")
    parser.add_argument("--write", action="store_true", help="write results/first_solve.md")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    trees = {"before": arguments.tree.resolve(), "after": HERE} if arguments.tree else {"after": HERE}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "llvmlite"))
    machine = f"{platform.system()} {platform.machine()}, {cores} cores; Python {platform.python_version()}"
    text = "# The first solve\n\nWritten by `python -m benchmarks.first_solve`. Wall-clock seconds of a whole\n"
    text += f"process, medians of {arguments.runs}. Cold: empty cache; warm: filled cache, fresh process.\n\n"
    text += f"{machine}; {packages}.\n\n"
    text += "\n".join(measure(trees, arguments.runs)) + "\n"
    print(text)
    if arguments.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
