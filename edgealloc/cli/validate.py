"""``edgealloc validate``: a model trained under each allocation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from edgealloc.cli.options import LazyOptions
from edgealloc.cli.shared import case_argument, makeable, out_folder, refuse_overwriting, say
from edgealloc.cli.training_options import TrainingOptions, run_text, training_bar, training_options
from edgealloc.errors import Fault
from edgealloc.files.disk import output_fault
from edgealloc.files.lock import sole_writer

__all__ = ["validate_command"]


@click.command(
    "validate", cls=LazyOptions, more=training_options, short_help="train under allocations, and see what wins"
)
@case_argument
@click.option(
    "--methods",
    help="names, separated by commas: methods of solve, stragglers (no dropout, equal shares) and admission "
    "(no dropout, for as many as fit)",
)
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="gap that exact methods stop at")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="seconds per solve")
@click.option(
    "--slack", type=float, default=0.0, show_default=True, help="slack of the calibration, for the figure"
)
@click.option(
    "--out",
    type=out_folder,
    callback=makeable,
    default=Path("out/validation"),
    show_default=True,
)
def validate_command(
    case: Path, methods: str | None, rel_gap: float, time_limit: float, slack: float, out: Path, **options: Any
) -> None:
    """Allocate a cell by several methods and train a model under each, by the cell's clock and meter.

    A round lasts as long as its slowest device; who misses the deadline is not heard, and pays. The training set
    is divided like the instance's samples. Writes scores, curves, a table and a page of figures into a folder.
    Calibrate the instance first: its bound is what the allocations are optimal for.
    """
    from edgealloc.files.instance import load_instance

    asked = TrainingOptions(**options)
    store = out / "runs.jsonl"
    refuse_overwriting({"CASE": case}, [("--out", store)])
    instance = load_instance(case)
    asked.start(instance)
    from edgealloc.models.training.ranges import number, require
    from edgealloc.models.trials.cell import DEFAULT_PLANS, files_of, payload_note, plans_for, save, verdict
    from edgealloc.models.trials.validate import markdown, validate
    from edgealloc.report.canvas import caption

    require("validation", [number("slack", slack, -math.inf), *map(_output_fault, [*files_of(out), store])])
    training = asked.federated()
    setup = asked.setup(instance, asked.data)
    note = payload_note(instance, asked.adapter(setup))
    if note is not None:
        say(f"Warning: {note}", err=True)
    names = DEFAULT_PLANS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    with sole_writer(out):
        plans = plans_for(instance, names, rel_gap=rel_gap, time_limit=time_limit, tell=say)
        with training_bar(f"training, {setup.name}", len(plans) * asked.seeds, store) as advance:
            seen = validate(
                plans,
                setup,
                training,
                samples=instance.samples,
                seeds=range(asked.seeds),
                store=store,
                device=asked.device,
                progress=lambda r: advance(f"{r['plan']}, seed {r['seed']}: {run_text(r)}"),
            )
        title = f"{caption(instance.name)}, {caption(setup.name)}, {asked.rule}"
        paths = []
        try:
            paths = save(seen, out, title, slack, note=note)
        finally:
            say(f"\n{markdown(seen)}\n{verdict(seen)}")
            for path in paths:
                say(f"written       {path}")


def _output_fault(path: Path) -> Fault | None:
    """What keeps an output from being written, told before anything is trained; its folder is made later."""
    words = output_fault(path) if path.parent.is_dir() else None
    return None if words is None else Fault("--out", "path", words, "files that can be written")
