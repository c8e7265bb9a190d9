"""How much the trainer's shortcuts save: CPU time of a training step with and without them.

    python benchmarks/fedlodrop_speed.py --data FOLDER

MiniLM-L6 on FOLDER/sst2, query and value of the last layer, batches of 20, one thread; the best of several passes
over the same batches, alternating, so that a busy machine slows all alike. Prints a table, writes nothing.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from edgealloc.models.training.task import Setup, Task, build_task


def step_ms(task: Task, batches: list[torch.Tensor], optimiser: torch.optim.Optimizer) -> float:
    """Return the CPU time in ms of a training step: forward, backward, update."""
    start = time.process_time()
    for batch in batches:
        loss = torch.nn.functional.cross_entropy(task.feed.logits(batch), task.feed.labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return 1e3 * (time.process_time() - start) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sst2/")
    parser.add_argument("--passes", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    file = str(asked.data / "sst2" / "train.tsv")
    setup = Setup("sst2", train_file=file, train_size=100, validation_size=20, test_size=20)
    tasks = {name: build_task(setup, 0, fast=name != "plain") for name in ("plain", "fast")}
    feed = tasks["fast"].feed
    print(f"cached {feed.cached}, maps looked up {feed.frozen_maps}, first token only {feed.first_token_only}")
    rng = np.random.default_rng(0)
    batches = [torch.from_numpy(rng.permutation(100)[:20]) for _ in range(10)]
    best = dict.fromkeys(tasks, np.inf)
    for _ in range(asked.passes):
        for name, task in tasks.items():
            optimiser = torch.optim.AdamW(list(task.handle.parameters.values()), lr=1e-4)
            with task.feed.shortcuts() if name == "fast" else nullcontext():
                best[name] = min(best[name], step_ms(task, batches, optimiser))
    for name, value in best.items():
        print(f"{name:6s} {value:8.2f} ms per step")
    print(f"{best['plain'] / best['fast']:.1f} times faster")


if __name__ == "__main__":
    main()
