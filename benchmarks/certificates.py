"""Processor time of certificates beside that of the solve, one line per instance.

    python -m benchmarks.certificates CASES/ofdma-6x32-s1.json ...

Every instance is solved to 1e-6 twice (the first time compiles), its certificate written and checked by way of its
JSON text. Times are those of the processor, for one thread.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.files.instance import load_instance
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate

REL_GAP = 1e-6


def line(path: Path) -> str:
    """The row of one instance; tells also when the certificate does not hold."""
    instance = load_instance(path)
    certified(solve(instance, rel_gap=REL_GAP), REL_GAP)
    times = [time.process_time()]
    result = solve(instance, rel_gap=REL_GAP)
    times.append(time.process_time())
    result, certificate = certified(result, REL_GAP)
    text = json.dumps(certificate.to_file())
    times.append(time.process_time())
    proof = check_certificate(instance, certificate_from_dict(json.loads(text)))
    times.append(time.process_time())
    solved, written, checked = (b - a for a, b in itertools.pairwise(times))
    verdict = "proved" if not proof.faults else f"REFUSED: {proof.faults[0]}"
    cells = [
        instance.name, result.status.value, *(f"{seconds:.3f}" for seconds in (solved, written, checked)),
        f"{len(text) / 1e3:.0f} kB", str(proof.leaves), str(proof.in_balls), verdict,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("| instance | status | solve s | write (and check) s | check s | size | boxes | in balls | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print(line(Path(name)), flush=True)
