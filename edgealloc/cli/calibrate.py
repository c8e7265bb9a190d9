"""``edgealloc calibrate``: the constants of the bound, and of the loss of a whole run, from pilot runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgealloc.cli.options import LazyOptions
from edgealloc.cli.shared import EXIT_INVALID, case_argument, out_path, refuse_overwriting, say, storable, writable
from edgealloc.cli.training_options import Rates, TrainingOptions, run_text, training_bar, training_options
from edgealloc.errors import InputError

if TYPE_CHECKING:
    from edgealloc.models.trials.learning import LearningFit
    from edgealloc.models.trials.store import Record

__all__ = ["calibrate_command"]


@click.command("calibrate", cls=LazyOptions, more=training_options, short_help="fit the bound to pilot runs")
@case_argument
@click.option("--out", type=out_path, callback=writable, help="write the instance with its new bound")
@click.option(
    "--dropouts", type=Rates(), default="0,0.1,0.2,0.3,0.5,0.7", show_default=True, help="rates of the pilot runs"
)
@click.option(
    "--underfit",
    type=click.Choice(["auto", "inverse-keep", "perturbation", "curve"]),
    default="auto",
    show_default=True,
    help="form of the underfitting term; auto takes the one that fits",
)
@click.option(
    "--against",
    default="",
    metavar="RULES",
    help="other rules that are piloted too and compared, separated by commas",
)
@click.option("--check", help="data like --data that the constants are tried on, not fitted to")
@click.option(
    "--store",
    type=out_path,
    callback=storable,
    default=Path("out/pilot.jsonl"),
    show_default=True,
    help="finished pilot runs, which are not repeated",
)
@click.option("--anyway", is_flag=True, help="write constants even if the pilot runs or the fit say nothing")
def calibrate_command(
    case: Path,
    out: Path | None,
    against: str,
    anyway: bool,
    dropouts: tuple[float, ...],
    underfit: Literal["auto", "inverse-keep", "perturbation", "curve"],
    check: str | None,
    store: Path,
    **options: Any,
) -> None:
    """Train at common dropout rates, fit the bound's constants to the losses, and write them into an instance.

    From the losses of every round comes the loss that a run of any number of rounds ends with, and which of
    several rules (--against) gets to the least loss for the fewest uploads. The constants belong to the task, the
    number of devices and the rule (masks, scaling, aggregation) of the pilot runs. Nothing
    else of the instance changes; with --out the same as CASE it is replaced in one step. Constants of which the
    pilot runs say nothing are not written (exit status 1), unless --anyway.
    """
    from edgealloc.files.instance import load_instance, save_instance

    asked = TrainingOptions(**options)
    data = {"--data": asked.data_path, "--check": None if check is None else Path(check)}
    refuse_overwriting({"CASE": case, **data}, [("--store", store)])
    refuse_overwriting(data, [("--out", out), ("--store", store)])  # onto CASE is what is meant: see above
    instance = load_instance(case)
    asked.start(instance)
    rules = list(dict.fromkeys([asked.rule, *(name.strip() for name in against.split(",") if name.strip())]))
    for rule in rules:
        replace(asked, rule=rule).federated()  # an unknown one is named before anything is trained
    import numpy as np

    from edgealloc.models.trials.calibrate import calibrate, pilot_from_records, transfer
    from edgealloc.models.trials.fit import fit
    from edgealloc.models.trials.sweep import markdown, summarise, sweep

    lines: list[str] = []  # said at the end, so that a closed standard output costs no result

    def pilot_runs(data: str | None, rules: Sequence[str]) -> tuple[str, list[Record]]:
        setup = asked.setup(instance, data)
        asked.adapter(setup)  # a model that is not there is named before anything is trained
        seeds = range(asked.seeds)

        def tell(r: Record) -> str:
            rule = f"{r['rule']}, " if len(rules) > 1 else ""
            return f"{rule}dropout {r['dropout']:g}, seed {r['seed']}: {run_text(r)}"

        total = len(rules) * len(dropouts) * len(seeds)
        with training_bar(f"pilot runs, {setup.name}", total, store) as advance:
            records = sweep(
                setup,
                rules,
                dropouts,
                seeds,
                store=store,
                options=asked.training(),
                device=asked.device,
                curves=True,
                progress=lambda r: advance(tell(r)),
            )
        lines.append(markdown(summarise(records)))
        return setup.name, records

    name, records = pilot_runs(asked.data, rules)
    pilot = pilot_from_records(records, data=name, rule=asked.rule)
    kept: dict[str, Any] = {
        "pooling": instance.bound.pooling,
        "confidence_delta": instance.bound.confidence_delta,
        "sparsity_weight": instance.bound.sparsity_weight,
    }
    covered = bool(np.all((instance.keep_min >= pilot.keep[0]) & (instance.keep_max <= pilot.keep[-1])))
    found = calibrate(pilot, curve=covered, **kept) if underfit == "auto" else fit(pilot, underfit, **kept)
    lines.append(found.report())
    told, learned = _learned(records, name, rules)
    lines += told
    if abs(found.best_keep - pilot.best_keep) > 0.1:
        hint = "" if covered else f"; for a curve, measure dropout up to {1 - instance.keep_min.min():g}"
        say(f"note: the fitted minimum is off the measured one{hint}", err=True)
    if pilot.samples != int(instance.total_samples):
        sizes = f"{pilot.samples} samples, the instance {instance.total_samples:.0f}"
        say(f"note: the pilot runs have {sizes}", err=True)
    ends = {1.0 - rate for rate in (dropouts[0], dropouts[-1]) if rate > 0}
    if pilot.best_keep in ends:
        say("note: the best rate measured is the last one tried; try rates beyond it", err=True)
    if check is not None:
        other, tried = pilot_runs(check, [asked.rule])
        seen = transfer(found, pilot_from_records(tried, data=other, rule=asked.rule))
        lines.append(
            f"on {other}, not fitted: best dropout predicted {1 - seen.predicted_keep:.2f}, measured "
            f"{1 - seen.measured_keep:.2f}; loss at the predicted rate {seen.regret:+.3f} nats above the least, "
            f"correlation of losses {seen.correlation:.2f}"
        )
    for doubt in found.doubts:
        say(f"Warning: {doubt}", err=True)
    held_back = bool(found.doubts) and not anyway
    try:
        if out is not None and not held_back:
            fitted = found.apply(instance, anyway=anyway)
            if learned is not None and (anyway or not learned.doubts):
                fitted = learned.apply(fitted, anyway=anyway)
            lines.append(f"written       {save_instance(fitted, out)}")
    finally:
        say("\n".join(lines))
    if out is not None and held_back:
        say(f"{out} is not written: the constants say nothing (see above); --anyway writes them", err=True)
        sys.exit(EXIT_INVALID)


def _learned(records: Sequence[Record], data: str, rules: Sequence[str]) -> tuple[list[str], LearningFit | None]:
    """What the losses of every round say of each rule, which to take, and the fit of the first of them.

    Doubts go to standard error.
    """
    from edgealloc.models.trials.rules import best_rounds, rule_table, rule_verdict

    fits = [_fitted(records, data, rule) for rule in rules]
    lines = [fitted.report() for fitted in fits if fitted is not None]
    if len(rules) > 1:
        rows = best_rounds(records)
        lines += [rule_table(rows), f"rule to take, {rule_verdict(rows, data)}"] if rows else []
    return lines, fits[0]


def _fitted(records: Sequence[Record], data: str, rule: str) -> LearningFit | None:
    """The loss by rounds and keep rate, or None with a word on why there is none."""
    from edgealloc.models.trials.curves import curves_from_records
    from edgealloc.models.trials.learning import fit_learning

    try:
        fitted = fit_learning(curves_from_records(records, data=data, rule=rule))
    except InputError as error:
        why = "; ".join(f"{fault.value}, allowed: {fault.allowed}" for fault in error.faults)
        say(f"note: no learning curve of {rule}: {why}", err=True)
        return None
    for note in fitted.notes:
        say(f"note: learning curve of {rule}: {note}", err=True)
    for doubt in fitted.doubts:
        say(f"Warning: learning curve of {rule}: {doubt}", err=True)
    return fitted
