"""The command ``edgealloc plan``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.shared import (
    case_argument,
    json_option,
    out_path,
    refuse_overwriting,
    rel_gap_option,
    say,
    seed_option,
    time_limit_option,
    writable,
)

if TYPE_CHECKING:
    from edgealloc.runs.plan import RunPlan

__all__ = ["EXITS", "plan_command", "plan_text"]

EXITS = {"infeasible": 3, "no_solution": 4, "error": 1}


class RoundsRange(click.ParamType[tuple[int, int]]):
    """``1:200`` as the least and the greatest number of rounds; ``8`` fixes it."""

    name = "least:greatest"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The two numbers."""
        if not isinstance(value, str):
            return tuple(value)  # a default
        first, _, last = value.partition(":")
        try:
            return int(first), int(last or first)
        except ValueError:
            self.fail(f"{value!r} is not of the form 1:200, nor one number", param, ctx)


@click.command("plan", short_help="a whole training run: rounds, deadline, who drops what")
@case_argument
@click.option("--time", "time_s", type=float, help="time for all rounds together, s")
@click.option("--energy", "energy_j", type=float, help="energy of each device for all rounds together, J")
@click.option(
    "--rounds", type=RoundsRange(), default=(1, 200), show_default="1:200", help="least and greatest number"
)
@click.option(
    "--minimise",
    type=click.Choice(["loss", "time", "energy", "weighted"]),
    default="loss",
    show_default=True,
    help="predicted loss; time of all rounds; largest share of --energy; weighted sum of time and share",
)
@click.option("--target", type=float, help="predicted loss to be reached, where that is not minimised")
@click.option(
    "--weights",
    type=(float, float),
    metavar="PER_S ALL",
    help="with --minimise weighted: what a second costs, and what it costs to use up --energy",
)
@click.option(
    "--needed",
    type=(float, float),
    metavar="C0 C1",
    help="instead of a learning curve and a target: C0 + C1 sum w/s rounds are needed at keep rates s",
)
@click.option("--caps/--no-caps", default=True, help="whether the budgets of CASE hold in every round too")
@click.option("--method", default="auto", show_default=True, help="what solves single rounds")
@rel_gap_option
@time_limit_option
@seed_option
@click.option("--out", type=out_path, callback=writable, help="write the plan, an edgealloc-runplan/1 file")
@click.option("--certificate", type=out_path, callback=writable, help="write the proof of its bound")
@click.option("--plot", type=out_path, callback=writable, help="draw predicted loss against rounds")
@json_option
def plan_command(
    case: Path,
    out: Path | None,
    certificate: Path | None,
    plot: Path | None,
    as_json: bool,
    needed: tuple[float, float] | None,
    **asked: Any,
) -> None:
    """Choose how many rounds to train, how long each may last, and the allocation, for the least predicted loss.

    Or for the least time, energy, or weighted sum of both, within which a loss is reached or enough rounds are
    trained. The learning curve is the block `learning` of CASE. Exit status 0 with a plan, 3 when no run is
    feasible, 4 when a limit left nothing. Ctrl-C returns the best plan so far.
    """
    from edgealloc.api import load
    from edgealloc.data.learning import NeededRounds
    from edgealloc.errors import needs
    from edgealloc.files.run import dict_from_run
    from edgealloc.report.progress import Progress
    from edgealloc.runs.planning import plan_run

    outputs = [("--out", out), ("--certificate", certificate), ("--plot", plot)]
    refuse_overwriting({"CASE": case}, outputs)
    if plot is not None:
        needs("matplotlib", "plot", "--plot")
    instance = load(case)
    if needed is not None:
        asked["curve"] = NeededRounds(*needed)
    with Progress(instance.name, shown=not as_json) as progress:
        plan = plan_run(instance, callback=progress.update, **asked)
    written = []
    try:
        if certificate is not None and not (plan.pieces or plan.excluded):
            say(f"no certificate: status {plan.status.value} claims no bound that could be proved", err=True)
        elif certificate is not None:
            plan, proof = plan.certified()
            written.append(proof.save(certificate))
        if out is not None:
            written.append(plan.save(out))
        if plot is not None and plan.result is not None:
            from edgealloc.report.canvas import save_figure
            from edgealloc.runs.picture import plot_rounds

            written.append(save_figure(plot_rounds(plan), plot))
    finally:
        say(json.dumps(dict_from_run(plan.claims()), indent=1, allow_nan=False) if as_json else plan_text(plan))
        for path in written:
            say(f"written       {path}", err=as_json)
    sys.exit(EXITS.get(plan.status.value, 0))


def plan_text(plan: RunPlan) -> str:
    """What a plan comes to, a line for each number."""
    from edgealloc.runs.needed import NeededRun

    lines = [f"status        {plan.status.value}" + (f" ({plan.message})" if plan.message else "")]
    if plan.result is not None:
        energy = plan.energy_j
        keep = plan.result.allocation.keep if plan.result.allocation is not None else energy
        lines += [
            f"rounds        {plan.rounds}, each within {plan.latency_s:.6g} s",
            f"time          {plan.time_s:.6g} s in all",
            f"energy        {energy.min():.6g} to {energy.max():.6g} J a device in all",
            f"keep rates    {keep.min():.3f} to {keep.max():.3f}",
            f"needed        {plan.loss:.6g} of these rounds"
            if isinstance(plan.run, NeededRun)
            else f"loss          {plan.loss:.6g} nats predicted",
        ]
        if plan.minimise != "loss":
            lines.append(f"objective     {plan.objective:.9g} ({plan.minimise})")
    lines += [
        f"bound         {plan.lower_bound:.9g}, rel_gap {plan.rel_gap:.2g}",
        f"solved        {plan.solves} rounds in {plan.seconds:.3g} s",
    ]
    return "\n".join(lines)
