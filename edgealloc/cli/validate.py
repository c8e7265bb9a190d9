"""``edgealloc validate``: a model trained under each allocation of a round, or under each plan of a whole run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.options import LazyOptions
from edgealloc.cli.plan import EXITS, plan_text
from edgealloc.cli.shared import case_argument, json_option, makeable, out_folder, refuse_overwriting, say
from edgealloc.cli.training_options import TrainingOptions, run_text, training_bar, training_options
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import output_fault
from edgealloc.files.lock import sole_writer

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance
    from edgealloc.models.trials.plans import Plan
    from edgealloc.models.trials.store import Record
    from edgealloc.runs.plan import RunPlan

__all__ = ["validate_command"]

_MOST_ROUNDS = 200  # that a run may have, as for `plan`


@click.command(
    "validate", cls=LazyOptions, more=training_options, short_help="train under allocations, and see what wins"
)
@case_argument
@click.option(
    "--methods",
    help="names, separated by commas: methods of solve, stragglers (no dropout, equal shares) and admission "
    "(no dropout, for as many as fit)",
)
@click.option(
    "--run",
    "whole_run",
    is_flag=True,
    help="plan a whole run by the block `learning` of CASE, and train it and what the methods do in a round, "
    f"repeated; --rounds is the most that a run may have ({_MOST_ROUNDS})",
)
@click.option("--time", "time_s", type=float, help="with --run: time for all rounds together, s")
@click.option("--energy", "energy_j", type=float, help="with --run: energy of each device for all rounds, J")
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="gap that exact methods stop at")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="seconds per solve or plan")
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
@json_option
def validate_command(
    case: Path,
    methods: str | None,
    whole_run: bool,
    time_s: float | None,
    energy_j: float | None,
    rel_gap: float,
    time_limit: float,
    slack: float,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Allocate a cell by several methods and train a model under each, by the cell's clock and meter.

    A round lasts as long as its slowest device; who misses the deadline is not heard, and pays. The training set
    is divided like the instance's samples. Writes scores, curves, a table and a page of figures into a folder.
    Calibrate the instance first: its bound is what the allocations are optimal for.

    With --run whole runs are trained, all within the same total time and energy. Each is judged where it was to
    stop, and at its round of least validation loss. Exit status 3 or 4 where there is no plan, as for `plan`.
    """
    from edgealloc.files.instance import load_instance
    from edgealloc.solvers.base import Control, Options

    asked = TrainingOptions(**options)
    store = out / "runs.jsonl"
    instance = load_instance(case)
    _require_run(instance, asked, whole_run, {"time": time_s, "energy": energy_j})
    Options(rel_gap, time_limit)  # which says so before anything is loaded
    asked.start(instance)
    from edgealloc.models.training.ranges import number, require
    from edgealloc.models.trials.cell import DEFAULT_PLANS, files_of, payload_note, plans_for, save, verdict
    from edgealloc.models.trials.runs import predicted_losses, run_records, run_table, validate_runs
    from edgealloc.models.trials.validate import markdown, require_rule, validate
    from edgealloc.report.canvas import caption

    name, plan_file = ("run", [out / "plan.json"]) if whole_run else ("validation", [])
    outputs = [*files_of(out, name), store, *plan_file]
    refuse_overwriting({"CASE": case, "--data": asked.data_path}, [("--out", path) for path in outputs])
    require("validation", [number("slack", slack, -math.inf), *map(_output_fault, outputs)])
    training = asked.federated()
    require_rule(training, menus=instance.adapter_options is not None)
    setup = asked.setup(instance, asked.data)
    note = payload_note(instance, asked.adapter(setup))
    if note is not None:
        say(f"Warning: {note}", err=True)
    names = DEFAULT_PLANS if methods is None else [word.strip() for word in methods.split(",") if word.strip()]
    limits: dict[str, Any] = {"rel_gap": rel_gap, "time_limit": time_limit}

    def tell(words: str) -> None:
        say(words, err=as_json)

    with sole_writer(out):
        planned, predicted = None, dict[str, float]()
        if whole_run:
            with Control.of_a_series():  # whoever stops the plan wants none of it trained
                planned = _planned(instance, asked, (time_s, energy_j), limits, as_json)
            plans = _with_rivals(planned, names, limits, tell)
            predicted = predicted_losses(plans, instance, planned.run.loss)
        else:
            plans = plans_for(instance, names, **limits, tell=tell)
        with training_bar(f"training, {setup.name}", len(plans) * asked.seeds, store) as advance:
            seen = (validate_runs if whole_run else validate)(
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
        first = plans[0].name
        table = run_table(seen, first, predicted) if whole_run else markdown(seen)
        notes = [table] * whole_run + [note] * (note is not None)
        paths = []
        try:
            paths += [planned.save(path) for path in plan_file if planned is not None]
            paths += save(seen, out, title, slack, name=name, note="\n".join(map(str, notes)) or None)
        finally:
            if as_json:
                say(_json(planned, run_records(seen, first, predicted)))
            else:
                say(f"\n{table}\n{verdict(seen)}")
            for path in paths:
                say(f"written       {path}", err=as_json)


def _require_run(instance: Instance, asked: TrainingOptions, whole_run: bool, totals: dict[str, Any]) -> None:
    """See that what is asked of a whole run is asked of one, before anything is planned.

    Raises
    ------
    InputError
        Names totals that are none or have no run, a patience, which would move the stop, and a cell without a
        learning curve.
    """
    from edgealloc.runs.asked import TOTAL, is_total

    faults = []
    if not whole_run:
        faults = [Fault("options", k, f"{v:g}", "--run beside it") for k, v in totals.items() if v is not None]
    else:
        wrong = [(k, v) for k, v in totals.items() if v is not None and not is_total(v)]
        faults = [Fault("options", k, f"{v:g}", TOTAL) for k, v in wrong]
    if whole_run and asked.patience:
        allowed = "0 with --run: a plan stops where it says, and the best round is judged beside it"
        faults.append(Fault("options", "patience", str(asked.patience), allowed))
    if whole_run and instance.learning is None:
        faults.append(Fault("instance", "learning", "none", "the block that `edgealloc calibrate` writes"))
    if faults:
        raise InputError("validation", faults)


def _planned(
    instance: Instance,
    asked: TrainingOptions,
    totals: tuple[float | None, float | None],
    limits: dict[str, Any],
    as_json: bool,
) -> RunPlan:
    """The plan of a run; without one the command ends here, and says why."""
    from edgealloc.files.run import dict_from_run
    from edgealloc.report.progress import Progress
    from edgealloc.runs.planning import plan_run

    span = (1, _MOST_ROUNDS if asked.rounds is None else asked.rounds)
    with Progress(instance.name, shown=not as_json) as progress:
        plan = plan_run(
            instance, time_s=totals[0], energy_j=totals[1], rounds=span, **limits, callback=progress.update
        )
    if plan.result is None:
        say(json.dumps(dict_from_run(plan.claims()), indent=1, allow_nan=False) if as_json else plan_text(plan))
        sys.exit(EXITS.get(plan.status.value, 1))
    say(plan_text(plan), err=as_json)
    return plan


def _with_rivals(
    planned: RunPlan,
    names: Sequence[str],
    limits: dict[str, Any],
    tell: Callable[[str], None],
) -> list[Plan]:
    """The planned run and the methods that know one round, on the same totals over as many rounds."""
    from edgealloc.models.trials.runs import plan_from_run, rivals_for

    run = planned.run
    rivals = rivals_for(
        run.instance,
        names,
        planned.rounds,
        time_s=run.time_s,
        energy_j=run.energy_j,
        most=planned.span.last,
        **limits,
        tell=tell,
    )
    return [plan_from_run(planned), *rivals]


def _json(planned: RunPlan | None, rows: list[Record]) -> str:
    """The plan of a run, where there is one, and a row for each plan that was trained."""
    from edgealloc.data.solution import finite_or_none  # brings numpy
    from edgealloc.files.run import dict_from_run

    runs = [
        {key: finite_or_none(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    plan = None if planned is None else dict_from_run(planned.claims())
    return json.dumps({"plan": plan, "runs": runs}, indent=1, allow_nan=False)


def _output_fault(path: Path) -> Fault | None:
    """What keeps an output from being written, told before anything is trained; its folder is made later."""
    words = output_fault(path) if path.parent.is_dir() else None
    return None if words is None else Fault("--out", "path", words, "files that can be written")
