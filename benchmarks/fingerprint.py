"""What the methods answer, to the bit: to see that a change of the code's form changed nothing else.

    python -m benchmarks.fingerprint FOLDER                      # every instance file of a folder
    python -m benchmarks.fingerprint FOLDER --methods bnb psca --time-limit 60

One line per case and method: status, objective and lower bound as hexadecimal doubles, nodes, iterations; last,
one digest of all lines. Two trees that print the same digest on one machine took the same steps. A case that ends
at the time limit depends on the machine's speed: its line says so and does not count towards the digest.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import edgealloc

METHODS = ("auto", "bnb", "psca", "psca+", "baseline:equal")


def line(path: Path, method: str, time_limit: float) -> tuple[str, bool]:
    """What a method answers on a case, and whether that is the same on every run."""
    result = edgealloc.solve(edgealloc.load(path), method, rel_gap=1e-6, time_limit=time_limit)
    values = f"{result.objective.hex()} {result.lower_bound.hex()}"
    text = f"{path.stem} {method} {result.status} {values} {result.nodes} {result.iterations}"
    return text, result.seconds < 0.9 * time_limit


def main() -> None:
    """Print the lines and their digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME")
    parser.add_argument("--time-limit", type=float, default=120.0, metavar="S")
    parser.add_argument("--max-devices", type=int, default=100, metavar="K")
    options = parser.parse_args()
    digest = hashlib.sha256()
    for path in sorted(options.folder.glob("*.json")):
        if path.name == "references.json" or edgealloc.load(path).num_devices > options.max_devices:
            continue
        for method in options.methods:
            text, settled = line(path, method, options.time_limit)
            print(text if settled else f"{text} (stopped at the limit)", flush=True)
            if settled:
                digest.update(f"{text}\n".encode())
    print("digest", digest.hexdigest())


if __name__ == "__main__":
    main()
