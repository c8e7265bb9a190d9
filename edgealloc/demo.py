"""The guided tour behind ``make demo``: realistic cells, proven allocations, checks, pictures, training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.api import solve
from edgealloc.bench.preview import draw_demo
from edgealloc.certificate.file import save_certificate
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import MissingPackageError, printable
from edgealloc.files.disk import make_folder
from edgealloc.files.instance import save_instance
from edgealloc.formulation.comparison import comparison_listing
from edgealloc.formulation.listing import device_listing
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.report.draw import draw
from edgealloc.report.tables import allocated, print_listing, proof_text
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Options
from edgealloc.solvers.certify.write import certified
from edgealloc.solvers.exact import search
from edgealloc.solvers.search.tree import draw as draw_tree
from edgealloc.units import BoolArray, FloatArray
from edgealloc.verify.solution import verify_files

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]

Places = tuple[FloatArray, BoolArray]  # positions in m and line of sight, for the map of the cell

# What papers compare with; `edgealloc.solvers.baselines.BASELINES` lists them all.
_OTHERS = ("psca", "psca+", "baseline:equal", "baseline:best-channel", "baseline:no-dropout")
# What a model is trained under; the last two are no allocations: see `edgealloc.models.trials.plans`.
_TRAINED = ("auto", "baseline:common", "baseline:equal", "stragglers", "admission")
# The bound of the trained task: from `edgealloc calibrate CELL --rule inverted --label-noise 0.2 --rounds 8
# --seeds 4 --dropouts 0,0.2,0.4,0.5,0.6,0.7,0.8,0.9` on a cell of 5 devices with 20 samples each. Fit error .013
# nats; the loss is flat, 1.014 to 1.027, between dropout .2 and .7, and 1.096 without.
_NOISE, _ROUNDS = 0.2, 8
_BOUND = BoundSpec("inverse-keep", 0.02269338, loss_range=4.348237, lipschitz=0.09625438, curvature=0.1842020)


def run(folder: Path, devices: int, seed: int, console: Console) -> None:
    """Go through the tour, printing to ``console`` and writing files into ``folder``."""
    make_folder(folder)
    cell = make_cell(CellOptions(devices=devices), np.random.default_rng(seed))
    instance = cell.instance
    console.rule("1. a cell with its own band for everybody (FDMA)")
    console.print(
        f"An urban macro cell (3GPP TR 38.901 UMa): {devices} devices, "
        f"{int(cell.line_of_sight.sum())} of them in line of sight, share {instance.bandwidth_hz / 1e3:.4g} kHz; "
        f"each trains a LoRA adapter and must report within {instance.latency_s:g} s.\n"
    )
    _prove(instance, folder, "demo-fdma", console, (cell.position_m, cell.line_of_sight))
    console.rule("2. the same cell, where keep rates come in tenths")
    levels = (np.round(np.arange(0.1, 1.05, 0.1), 1),) * devices
    tenths = instance.with_changes(name=f"{instance.name}-tenths", keep_levels=levels)
    coarse, outcome = search(Problem(tenths), Options(rel_gap=1e-6, time_limit=60.0))
    console.print(proof_text(coarse), markup=False, highlight=False)
    if outcome is not None:
        console.print(f"search tree   {len(outcome.tree.nodes)} nodes, depth {outcome.tree.depth}")
        _tell(console, "picture      ", draw_tree(outcome.tree, folder / "demo-tenths-tree.png"))
    console.rule("3. a cell that deals out sub-carriers (OFDMA)")
    options = CellOptions(devices=min(devices, 6), access="ofdma", subcarriers=32)
    cell = make_cell(options, np.random.default_rng(seed))
    exact = _prove(cell.instance, folder, "demo-ofdma", console, (cell.position_m, cell.line_of_sight))
    console.rule("4. the same cell by the fast method and by simple schemes")
    console.print("Gaps are measured against the bound that branch and bound proved.\n")
    others = (solve(cell.instance, name, seed=seed) for name in _OTHERS)
    print_listing(console, comparison_listing([exact, *others]))
    console.print("\nAnd one small cell under deadlines from tight to loose:")
    _tell(console, "picture  ", draw_demo(folder))
    console.rule("5. what the allocations are worth: a model trained under each")
    try:
        _train(folder, seed, console)
    except MissingPackageError as error:
        console.print(f"left out: {error}", markup=False)


def _train(folder: Path, seed: int, console: Console) -> None:
    """Train on the offline default under the optimum and under simpler plans, two seeds each."""
    from edgealloc.models.training.backbone import require_training

    require_training(threads=1)  # so small a model gains nothing from more, and results repeat
    from edgealloc.models.exchange.wire import AdapterShape
    from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
    from edgealloc.models.training.task import Setup, build_task
    from edgealloc.models.trials.cell import plans_for, save, trial_cell, verdict
    from edgealloc.models.trials.sweep import RULES
    from edgealloc.models.trials.validate import markdown, validate

    setup = Setup(label_noise=_NOISE, train_size=100)
    shape = AdapterShape.from_state(build_task(setup, seed).initial)
    drawn = CellOptions(devices=setup.devices, samples=(15, 25), reference_keep=0.2)
    rng = np.random.default_rng(seed)
    cell = trial_cell(drawn, shape.payload_fixed_bits, shape.payload_lora_bits, rng)
    cell = cell.with_changes(bound=_BOUND)
    console.print(
        f"{setup.devices} devices with {cell.total_samples:.0f} images of digits between them, a fifth of them "
        "with a wrong label, and spectrum for a fifth of their adapters. The bound is calibrated on pilot runs of "
        "this task (docs/trainer.md). Two seeds only: the intervals say how little that proves.\n"
    )
    plans = plans_for(cell, _TRAINED, tell=lambda line: console.print(line, markup=False, highlight=False))
    setup = replace(setup, train_size=int(cell.total_samples))
    options = replace(RULES["inverted"], rounds=_ROUNDS, learning_rate=DIGITS_LEARNING_RATE)
    with console.status("training") as status:
        seen = validate(
            plans,
            setup,
            options,
            samples=cell.samples,
            seeds=(0, 1),
            progress=lambda r: status.update(f"trained: {r['plan']}, seed {r['seed']}"),
        )
    console.print(f"\n{markdown(seen)}\n{verdict(seen)}", markup=False, highlight=False)
    console.print()
    _tell(console, "files    ", *save(seen, folder, "digits", name="demo-training"))


def _prove(instance: Instance, folder: Path, name: str, console: Console, places: Places) -> Result:
    """Solve, save, check and draw one cell."""
    case = save_instance(instance, folder / f"{name}.json")
    result, certificate = certified(solve(instance, rel_gap=1e-6, time_limit=60.0), 1e-6)
    solution = result.save(folder / f"{name}-solution.json")
    proof = save_certificate(certificate, folder / f"{name}-proof.json")
    print_listing(console, device_listing(result.problem, allocated(result)[0]))
    console.print(proof_text(result), markup=False, highlight=False)
    result.raise_for_status()
    console.print(f"\n{verify_files(case, solution, proof)}", markup=False, highlight=False)
    pictures = draw(result, folder / name, *places)
    console.print()
    _tell(console, "files    ", case, solution, proof)
    _tell(console, "pictures ", *pictures)
    return result


def _tell(console: Console, *words: object) -> None:
    """Print a line with paths, whatever they hold."""
    console.print(*map(printable, words), markup=False, highlight=False)
