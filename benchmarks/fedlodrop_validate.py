"""Does the optimum of the bound train the better model? A tight cell, allocated by several methods and trained.

    python benchmarks/fedlodrop_validate.py --data FOLDER --methods convex [--access fdma] [--out FOLDER]

The bound's constants are fitted to pilot runs in OUT/fedlodrop_sweep.csv (zero-filled). Payloads are those of
the adapter that is trained (MiniLM-L6, query and value of the last layer, rank 8, 32 bit), and the cell's
samples are its training set. Finished runs are kept in OUT/fedlodrop_validate.jsonl. Writes
OUT/fedlodrop_validate_ACCESS_UNDERFIT.{csv,md,png}.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path

import numpy as np

import edgealloc
from edgealloc.instance import Instance
from edgealloc.models.calibrate import calibrate, fit, pilot_from_records
from edgealloc.models.client import FederatedOptions
from edgealloc.models.figure import plot_validation
from edgealloc.models.plans import validation_plans
from edgealloc.models.task import Setup
from edgealloc.models.validate import markdown, validate
from edgealloc.scenario import CellOptions, make_cell

# MiniLM-L6: two adapted maps 384 x 384 of rank 8, and a head of 2 x 385 numbers, all in 32 bit.
LORA_BITS, HEAD_BITS = 32.0 * 2 * 8 * (384 + 384), 32.0 * 2 * 385


def cell(access: str, devices: int, tightness: float, seed: int) -> Instance:
    """Draw a cell whose spectrum is ``tightness`` times what the keep rate 0.3 needs of everyone."""
    options = CellOptions(
        devices=devices,
        access=access,  # type: ignore[arg-type]
        samples=(20, 80),
        architecture="minilm-l6",
        bits=32.0,
        latency_s=10.0,
        reference_keep=0.3,
        head_labels=2,
    )
    drawn = make_cell(options, np.random.default_rng(seed)).instance
    ratio = (HEAD_BITS + 0.3 * LORA_BITS) / (drawn.payload_fixed_bits[0] + 0.3 * drawn.payload_lora_bits[0])
    return drawn.with_changes(
        bandwidth_hz=drawn.bandwidth_hz * ratio * tightness,
        payload_fixed_bits=np.full(devices, HEAD_BITS),
        payload_lora_bits=np.full(devices, LORA_BITS),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sst2/")
    parser.add_argument("--methods", nargs="+", default=["convex"], help="methods to be judged")
    parser.add_argument("--baseline", default="auto", help="method for the restricted problems")
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
    solve = partial(edgealloc.solve, time_limit=asked.time_limit)
    plans = validation_plans(
        instance,
        {name: partial(solve, method=name) for name in asked.methods},
        partial(solve, method=asked.baseline),
    )
    for p in plans:
        heard = p.keep[p.reports]
        print(
            f"{p.name:22s} G {p.bound:.4f} reporting {p.reports.sum():2d} of {p.selected.sum()} keep "
            f"{np.round(heard, 2)} round {p.round_s:.2f} s {p.round_j:.2f} J"
        )
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
    name = f"fedlodrop_validate_{asked.access}_{instance.bound.underfit}"
    table = markdown(seen)
    for measure, words in (("test_loss", "final"), ("best_test_loss", "best-round")):
        for r in seen.against(plans[0].name, measure):
            table += (
                f"\n{r['plan']} - {plans[0].name}: {r['difference']:+.4f} +- {r['ci95']:.4f} nats of {words} test "
                f"loss (95 %, paired; lower in {r['better_in']} of {r['seeds']} seeds)\n"
            )
    (asked.out / f"{name}.md").write_text(table, encoding="utf-8")
    seen.to_frame().to_csv(asked.out / f"{name}.csv", index=False, lineterminator="\n")
    plot_validation(seen, f"SST-2, {asked.devices} devices, {asked.access}", calibration.slack).savefig(
        asked.out / f"{name}.png", dpi=100
    )
    print(table)


if __name__ == "__main__":
    main()
