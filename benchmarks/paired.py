"""Warm solves of two checkouts in turn: whether a change cost time.

    git worktree add ../before REVISION
    python -m benchmarks.paired ../before .

Processor seconds of one thread, the least of all turns, for they are what other work on a machine disturbs least;
compiling is not in them. Each checkout keeps its compiled code in a folder of its own. The random cells are those
of the checkout's own generator with the same seeds. Several minutes, the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Runs in either checkout, so it asks for nothing newer than `solve` and the scenario generator.
PROGRAM = """
import json, sys, time
import numpy as np
import edgealloc
from edgealloc.scenario import CellOptions, make_cell
RUNS = {
    "bnb, OFDMA (6, 32)": ("bnb", dict(access="ofdma", devices=6, subcarriers=32), 4, 2),
    "bnb, OFDMA (8, 64)": ("bnb", dict(access="ofdma", devices=8, subcarriers=64), 2, 1),
    "convex, FDMA 1000": ("convex", dict(devices=1000), 3, 5),
    "psca, OFDMA (6, 32)": ("psca", dict(access="ofdma", devices=6, subcarriers=32), 4, 2),
}
found = {}
for name, (method, options, seeds, times) in RUNS.items():
    cells = [make_cell(CellOptions(**options), np.random.default_rng(seed)).instance for seed in range(seeds)]
    for cell in cells:  # compile or load
        edgealloc.solve(cell, method, rel_gap=1e-6)
    found[name] = 0.0
    for cell in cells:
        took = []
        for _ in range(times):
            started = time.process_time()
            edgealloc.solve(cell, method, rel_gap=1e-6)
            took.append(time.process_time() - started)
        found[name] += min(took)
print("\\n" + json.dumps(found), file=sys.stderr)
"""


def measured(tree: Path, cache: Path) -> dict[str, float]:
    """Processor seconds by run, of one process in a checkout."""
    env = {**os.environ, "PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=env,
        cwd=cache,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stderr.strip().splitlines()[-1])
    return found


def main() -> None:
    """Print a line for each run: seconds before and after, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    trees = arguments.before.resolve(), arguments.after.resolve()
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder) / side for side in ("before", "after")]
        for cache in caches:
            cache.mkdir()
        turns = [[measured(*pair) for pair in zip(trees, caches, strict=True)] for _ in range(arguments.turns)]
    print("| warm solves | before, s | after, s | ratio |\n|---|---|---|---|")
    for name in turns[0][0]:
        before, after = (min(turn[side][name] for turn in turns) for side in (0, 1))
        print(f"| {name} | {before:.3f} | {after:.3f} | {after / before:.2f} |")


if __name__ == "__main__":
    main()
