"""Allocations put to the test: each is trained under the cell's clock and meter, over several seeds.

A round lasts as long as the slowest device that reports; where a selected device misses the deadline, the server
waits for it until the deadline, and its update is lost. Every selected device pays its energy, in vain or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import Fault, InputError, needs
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.federated import Ending, run
from edgealloc.models.training.identity import setup_identity
from edgealloc.models.training.task import Setup, build_task
from edgealloc.models.trials.plans import Plan
from edgealloc.models.trials.store import Record, opened, scores
from edgealloc.models.trials.sweep import half_width, run_key
from edgealloc.report.tables import markdown_cell
from edgealloc.units import FloatArray, IntArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Validation:
    """Training curves and final scores of several plans over several seeds.

    Parameters
    ----------
    curves
        One record per plan, seed and round: ``plan``, ``seed``, ``round``, ``seconds``, ``joules``, ``test_loss``,
        ``test_accuracy``, ``validation_loss``, ``reporting``, ``upload_bits``.
    finals
        One record per plan and seed: the run's summary, the clock and the meter of a round (``round_s``,
        ``round_j``) and of all ``rounds`` (``run_s``, ``run_j``), ``bound`` and ``stability``;
        ``best_round`` counts from 1, as the rounds of the curves do. Scores of a run that diverged are nan.
    """

    curves: tuple[Record, ...] = field(repr=False)
    finals: tuple[Record, ...] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """Return the final scores, one row per plan and seed."""
        return _frame(self.finals)

    def curve_frame(self) -> pd.DataFrame:
        """Return the training curves, one row per plan, seed and round."""
        return _frame(self.curves)

    def table(self) -> list[Record]:
        """Return one row per plan: means over seeds with 95 % intervals, in the order of the plans.

        ``best_rounds`` are those of the seeds, one each, for the mean of two rounds need be none.
        """
        rows = []
        for name in dict.fromkeys(r["plan"] for r in self.finals):
            runs = [r for r in self.finals if r["plan"] == name]
            row: Record = {"plan": name, "seeds": len(runs)}
            for key in ("round_s", "round_j", "reporting", "bound", "stability", "rounds", "run_s", "run_j"):
                row[key] = runs[0][key]
            for key in ("test_loss", "test_accuracy", "train_loss", "best_test_loss"):
                values = [r[key] for r in runs]
                row |= {key: float(np.mean(values)), f"{key}_ci95": half_width(values)}
            row["measured_gap"] = row["test_loss"] - row["train_loss"]
            row["best_rounds"] = tuple(r["best_round"] for r in runs)
            row["diverged"] = sum(r["ending"] == Ending.DIVERGED for r in runs)
            rows.append(row)
        return rows

    def against(self, reference: str, measure: str = "test_loss") -> list[Record]:
        """Return paired differences to a reference plan (same seeds: same data and batches).

        A plan is better by more than the noise where ``difference + ci95 < 0``. With ``best_test_loss`` every plan
        is judged at its round of least validation loss, as if it had been stopped early.

        Parameters
        ----------
        reference
            Name of the plan to compare with.
        measure
            ``test_loss``, ``best_test_loss`` or another number of the final records.

        Returns
        -------
        list of dict
            One row per other plan: ``plan``, ``difference`` and ``ci95`` (mean and 95 % half-width, in the
            measure's unit; nan where a run of either diverged), ``better_in`` and ``seeds``.

        Raises
        ------
        InputError
            If there is no such plan.
        """
        base = {r["seed"]: r[measure] for r in self.finals if r["plan"] == reference}
        if not base:
            raise InputError("validation", [Fault("against", "reference", reference, ", ".join(self._names()))])
        rows = []
        for name in self._names():
            if name != reference:
                values = [r[measure] - base[r["seed"]] for r in self.finals if r["plan"] == name]
                row = {"plan": name, "difference": float(np.mean(values)), "ci95": half_width(values)}
                rows.append(row | {"better_in": sum(v < 0 for v in values), "seeds": len(values)})
        return rows

    def _names(self) -> list[str]:
        return list(dict.fromkeys(r["plan"] for r in self.finals))


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return the records as a data frame.

    Raises
    ------
    MissingPackageError
        Without pandas.
    """
    needs("pandas", "frame", "a result frame")
    import pandas as pd

    return pd.DataFrame.from_records(list(records))


def validate(
    plans: Sequence[Plan],
    setup: Setup,
    options: FederatedOptions,
    *,
    samples: FloatArray,
    seeds: Sequence[int] = (0, 1, 2),
    store: Path | None = None,
    device: str = "cpu",
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> Validation:
    """Train under each plan and seed; all plans of a seed share data, split, initial adapter and batches.

    Parameters
    ----------
    plans
        The allocations.
    setup
        The learning task; the devices' shares follow ``samples``.
    options
        Training options, the rule that the bound was calibrated for among them. The test set is evaluated every
        round unless ``test_every`` says otherwise.
    samples
        Samples of the instance's devices; the training set is divided in these proportions. Shape [K].
    seeds
        Seeds.
    store
        JSON-lines file of finished runs, which are not repeated. A run that was cut off goes on after its last
        whole round.
    device
        Torch device.
    progress
        Called with each final record.

    Returns
    -------
    Validation
        Curves and final scores of all plans and seeds.

    Raises
    ------
    InputError
        As :func:`require_rule`; if two plans have the same name, one has a rank above that of the adapter that is
        trained, another process writes to the store, or the checkpoint of a run that was cut off is damaged.
    """
    require_rule(options, menus=any(plan.ranks is not None for plan in plans))
    if len({p.name for p in plans}) < len(plans):
        raise InputError("validation", [Fault("plans", "name", "repeated", "distinct names")])
    options = replace(options, test_every=options.test_every or 1)
    curves, finals = [], []
    identity = setup_identity(setup, device)
    with opened(store) as kept:
        for seed in seeds:
            task = None
            for plan in plans:
                chosen = replace(options, seed=seed, rounds=plan.rounds or options.rounds)
                key = _key(plan, identity, chosen, samples)
                if key not in kept.known:
                    task = task or build_task(setup, seed, device_weights=samples, device=device)
                    ranks = _trained(plan, AdapterShape.from_state(task.initial).rank)
                    place = kept.checkpoint(key)
                    rates = np.where(plan.reports, plan.keep, np.nan)
                    history = run(task, rates, chosen, reports=plan.reports, ranks=ranks, checkpoint=place)
                    if place is not None:
                        place.unlink(missing_ok=True)
                    kept.add({"key": key, "rounds": list(history.rounds), "summary": history.summary()})
                record = kept.known[key]
                curves += _curve(plan, seed, record["rounds"])
                finals.append(_final(plan, seed, chosen.rounds, scores(record["summary"])))
                if progress is not None:
                    progress(finals[-1])
    return Validation(tuple(curves), tuple(finals))


def require_rule(options: FederatedOptions, *, menus: bool) -> None:
    """Make sure that plans can be trained by a rule.

    Parameters
    ----------
    options
        Of the training.
    menus
        Whether devices choose a rank.

    Raises
    ------
    InputError
        For a ``robust`` rule, whose first round is on no plan's clock, and for a sparse B of lower rank.
    """
    faults = []
    if options.aggregation.robust != "none":
        allowed = (
            "none: its first round sends whole adapters, for which no plan has time and energy; screen before, "
            "and validate on the devices that are left"
        )
        faults.append(Fault("options", "robust", options.aggregation.robust, allowed))
    if menus and options.masks == "entries":
        allowed = "exact or bernoulli where devices choose a rank: single entries are those of the full rank"
        faults.append(Fault("options", "masks", options.masks, allowed))
    if faults:
        raise InputError("validation", faults)


def _trained(plan: Plan, most: int) -> IntArray | None:
    """The ranks that a plan's devices train, of 1 to the rank of the model.

    Raises
    ------
    InputError
        If a rank is higher.
    """
    if plan.ranks is None:
        return None
    if plan.ranks.max() > most:
        allowed = f"at most {most}, the rank of the adapter that is trained: train one of rank {plan.ranks.max()}"
        raise InputError("validation", [Fault(plan.name, "ranks", str(plan.ranks.max()), allowed)])
    return np.where(plan.ranks > 0, plan.ranks, most)


def _curve(plan: Plan, seed: int, rounds: Sequence[Record]) -> list[Record]:
    """Records of a run's rounds, counted from 1, with the clock and the meter of the plan."""
    curve = []
    for r in rounds:
        number = r["round"] + 1
        clock = {"seconds": number * plan.round_s, "joules": number * plan.round_j}
        total = {"upload_bits": int(np.sum(r["upload_bits"]))}
        curve.append({"plan": plan.name, "seed": seed, **r, **total, **clock, "round": number})
    return curve


def _final(plan: Plan, seed: int, rounds: int, summary: Record) -> Record:
    meter = {"round_s": plan.round_s, "round_j": plan.round_j, "reporting": int(plan.reports.sum())}
    meter |= {"rounds": rounds, "run_s": rounds * plan.round_s, "run_j": rounds * plan.round_j}
    said = {"best_round": summary["best_round"] + 1, "bound": plan.bound, "stability": plan.stability}
    return {"plan": plan.name, "seed": seed, **summary, **meter, **said}


def _key(plan: Plan, identity: Record, options: FederatedOptions, samples: FloatArray) -> str:
    """Return a hash of what training sees of a plan; the clock and the meter do not change the curves."""
    rates = np.where(plan.reports, plan.keep, 0.0).tolist()
    ranks = [] if plan.ranks is None else [plan.ranks.tolist()]
    return run_key(identity, options, json.dumps([rates, samples.tolist(), *ranks]), options.seed)


def markdown(validation: Validation) -> str:
    """Render the table of plans, best test loss first; a plan of which a run diverged has none and comes last."""
    lines = [
        "| plan | reporting | round s | round J | test loss | 95 % +- | accuracy | train | best round | its loss "
        "| bound |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(validation.table(), key=lambda row: np.nan_to_num(row["test_loss"], nan=np.inf)):
        start = f"| {markdown_cell(r['plan'])} | {r['reporting']} | {r['round_s']:.2f} | {r['round_j']:.2f} "
        if r["diverged"]:
            lines.append(f"{start}| diverged in {r['diverged']} of {r['seeds']} | | | | | | {r['bound']:.3f} |")
            continue
        rounds = _range_text(r["best_rounds"])
        lines.append(
            f"{start}| {r['test_loss']:.3f} | {r['test_loss_ci95']:.3f} | {r['test_accuracy']:.3f} "
            f"| {r['train_loss']:.3f} | {rounds} | {r['best_test_loss']:.3f} | {r['bound']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _range_text(rounds: Sequence[float]) -> str:
    """The earliest and the latest of the seeds' best rounds."""
    first, last = min(rounds), max(rounds)
    return f"{first:.0f}" if first == last else f"{first:.0f} to {last:.0f}"
