"""Run the NVFlare example in NVFlare's simulator, without a network: ``python run.py [--out FOLDER]``.

Four sites, three rounds; one site crashes in the second, one is late in the third.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lodrop_parts import LoDropController, LoDropExecutor
from nvflare.job_config.api import FedJob

ROUNDS, TIMEOUT_S = 3, 6


def main() -> None:
    """Run the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/nvflare"), help="folder for model.npz, history.json")
    out = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    job = FedJob(name="lodrop")
    job.to_server(LoDropController(ROUNDS, str(out), TIMEOUT_S))
    trouble = {1: {"crash_round": 2}, 3: {"late_round": 3, "late_s": TIMEOUT_S + 2.0}}
    for k in range(4):
        job.to(LoDropExecutor(k, **trouble.get(k, {})), f"dev-{k:02d}", tasks=["state", "train"])
    with tempfile.TemporaryDirectory(prefix="nvflare-") as workspace:
        job.simulator_run(workspace, threads=4)


if __name__ == "__main__":
    main()
