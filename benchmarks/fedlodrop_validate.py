"""Does the optimum of the bound train the better model? A tight cell, allocated by several methods and trained.

    python benchmarks/fedlodrop_validate.py --data FOLDER [--methods ...] [--access fdma] [--out FOLDER]

The bound's constants are fitted to pilot runs in OUT/fedlodrop_sweep.csv (zero-filled). Payloads are those of
the adapter that is trained (MiniLM-L6, query and value of the last layer, rank 8, 32 bit), and the cell's
samples are its training set. Finished runs are kept in OUT/fedlodrop_validate.jsonl. Writes
OUT/fedlodrop_validate_ACCESS_UNDERFIT.{csv,md,png} and the curves.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import Access
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.task import Setup
from edgealloc.models.trials.calibrate import calibrate, pilot_from_records
from edgealloc.models.trials.cell import DEFAULT_PLANS, plans_for, save, trial_cell, verdict
from edgealloc.models.trials.fit import fit
from edgealloc.models.trials.validate import markdown, validate
from edgealloc.scenario.options import CellOptions

# MiniLM-L6: two adapted maps 384 x 384 of rank 8, and a head of 2 x 385 numbers, all in 32 bit.
LORA_BITS, HEAD_BITS = 32.0 * 2 * 8 * (384 + 384), 32.0 * 2 * 385


def cell(access: Access, devices: int, tightness: float, seed: int) -> Instance:
    """Draw a cell whose spectrum is ``tightness`` times what the keep rate 0.3 needs of everyone."""
    options = CellOptions(
        devices=devices,
        access=access,
        samples=(20, 80),
        architecture="minilm-l6",
        bits=32.0,
        latency_s=10.0,
        reference_keep=0.3,
        head_labels=2,
    )
    return trial_cell(options, HEAD_BITS, LORA_BITS, np.random.default_rng(seed), tightness=tightness)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sst2/")
    parser.add_argument("--methods", nargs="+", default=DEFAULT_PLANS, help="methods, stragglers, admission")
    parser.add_argument("--access", default="fdma", choices=("fdma", "ofdma", "rb"))
    parser.add_argument("--pilot", default="sst2, 10 devices", help="data set of the pilot runs")
    parser.add_argument("--underfit", choices=("inverse-keep", "perturbation", "curve"), help="force this term")
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--tightness", type=float, default=1.0)
    parser.add_argument("--cell-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-limit", type=float, default=60.0, help="per solve, in s")
    parser.add_argument("--dry", action="store_true", help="stop after the plans")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    asked = parser.parse_args()

    with (asked.out / "fedlodrop_sweep.csv").open(encoding="utf-8") as file:
        numbers = ("dropout", "samples", "devices", "train_loss", "test_loss")
        records = [{k: float(v) if k in numbers else v for k, v in row.items()} for row in csv.DictReader(file)]
    pilot = pilot_from_records(records, data=asked.pilot, rule="zero-filled")
    calibration = fit(pilot, asked.underfit) if asked.underfit else calibrate(pilot)
    print(calibration.report())
    instance = calibration.apply(cell(asked.access, asked.devices, asked.tightness, asked.cell_seed))
    plans = plans_for(instance, asked.methods, time_limit=asked.time_limit)
    if asked.dry:
        return

    import torch

    torch.set_num_threads(1)
    folder = asked.data / "sst2"
    size = int(instance.samples.sum())
    files = {"train_file": str(folder / "train.tsv"), "test_file": str(folder / "test.tsv")}
    setup = Setup("sst2", **files, train_size=size, validation_size=200, test_size=1000, devices=asked.devices)
    seen = validate(
        plans,
        setup,
        FederatedOptions(test_every=2),
        samples=instance.samples,
        seeds=range(asked.seeds),
        store=asked.out / "fedlodrop_validate.jsonl",
        progress=lambda r: print(f"{r['plan']:22s} seed {r['seed']} test loss {r['test_loss']:.4f}", flush=True),
    )
    print(f"{markdown(seen)}\n{verdict(seen)}")
    title = f"SST-2, {asked.devices} devices, {asked.access}, {instance.bound.underfit}"
    name = f"fedlodrop_validate_{asked.access}_{instance.bound.underfit}"
    for path in save(seen, asked.out, title, calibration.slack, name=name):
        print(f"written       {path}")


if __name__ == "__main__":
    main()
