"""Allocations on trial: from the names of methods to plans, and from trained plans to tables, files and a verdict.

Joins the solvers and the trainer, which know nothing of each other; shared by the command line, the demo and the
benchmarks. Imports torch, so import it where it is used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.errors import (
    EdgeallocError,
    Fault,
    InputError,
    MissingPackageError,
    PlausibilityWarning,
    StatusError,
)
from edgealloc.files.disk import make_folder, write_file
from edgealloc.formulation.result import Result
from edgealloc.models.exchange.ranks import rank_of_label
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.trials.plans import Plan, Solve, admission, plan_from_result, stragglers
from edgealloc.models.trials.validate import Validation, markdown
from edgealloc.report.canvas import save_figure
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Control

__all__ = [
    "DEFAULT_PLANS",
    "SPECIAL_PLANS",
    "files_of",
    "payload_note",
    "plan_text",
    "plans_for",
    "require_ranks",
    "save",
    "trial_cell",
    "verdict",
]

# What is no allocation of the problem as it stands: see edgealloc.models.trials.plans.
SPECIAL_PLANS: Mapping[str, Callable[[Instance, Solve], Plan]] = MappingProxyType(
    {"stragglers": stragglers, "admission": admission}
)
DEFAULT_PLANS = ("auto", "psca", "baseline:common", "baseline:equal", *SPECIAL_PLANS)


def trial_cell(
    options: CellOptions, fixed_bits: float, lora_bits: float, rng: np.random.Generator, *, tightness: float = 1.0
) -> Instance:
    """Draw a cell in which the adapter that will be trained is sent, whatever architecture the options name.

    Parameters
    ----------
    options
        The cell; its ``reference_keep`` is what the spectrum is bought for.
    fixed_bits, lora_bits
        D0 and D1 of the adapter, in bit.
    rng
        Generator of the cell.
    tightness
        Factor on the spectrum.

    Returns
    -------
    Instance
        The cell, with spectrum in proportion to the payload.
    """
    drawn = make_cell(options, rng).instance
    keep = options.reference_keep
    ratio = (fixed_bits + keep * lora_bits) / (drawn.payload_fixed_bits[0] + keep * drawn.payload_lora_bits[0])
    return drawn.with_changes(
        bandwidth_hz=drawn.bandwidth_hz * ratio * tightness,
        payload_fixed_bits=np.full(drawn.num_devices, fixed_bits),
        payload_lora_bits=np.full(drawn.num_devices, lora_bits),
    )


def plans_for(
    instance: Instance,
    names: Sequence[str],
    *,
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = print,
) -> list[Plan]:
    """Solve an instance by each method; a method that finds nothing is left out, and ``tell`` is told why.

    Parameters
    ----------
    instance
        The cell, with calibrated constants.
    names
        Methods of :func:`edgealloc.solve`, and ``stragglers`` and ``admission``.
    rel_gap, time_limit, seed
        As for :func:`edgealloc.solve`; the limit, in s, holds per solve.
    tell
        Called with a line per plan.

    Returns
    -------
    list of Plan
        Of the methods that found something, in the order of ``names``.

    Raises
    ------
    InputError
        If no plan is left, or for an unknown method.
    """  # noqa: DOC501 (no StatusError: what is raised again is for an unknown method)

    def run(cell: Instance, method: str) -> Result:
        with Control.of_a_series():
            return solve(cell, method, rel_gap=rel_gap, time_limit=time_limit, seed=seed)

    def best(cell: Instance) -> Result:
        try:
            return run(cell, "auto")
        except EdgeallocError:  # no exact method takes it
            return run(cell, "psca+")

    def best_of_part(cell: Instance) -> Result:
        with warnings.catch_warnings():  # one device in its share looks odd where the whole cell does not
            warnings.simplefilter("ignore", PlausibilityWarning)
            return best(cell)

    plans: dict[str, Plan] = {}
    for name in names:
        try:
            if name in SPECIAL_PLANS:
                plan, how = SPECIAL_PLANS[name](instance, best_of_part), ""
            else:
                result = best(instance) if name == "auto" else run(instance, name)
                plan = plan_from_result(result)
                proved = f"gap {result.rel_gap:.1e}" if math.isfinite(result.rel_gap) else "no bound"
                how = f" ({result.status.value}, {proved})"
        except (StatusError, InputError) as error:
            if isinstance(error, InputError) and name not in SPECIAL_PLANS:
                raise  # an unknown method
            tell(f"{name}: left out: {error}")
            continue
        plans.setdefault(plan.name, plan)
        tell(plan_text(plan) + how)
    if not plans:
        raise InputError(
            "validation", [Fault("plans", "methods", ", ".join(names), "one that finds an allocation")]
        )
    return list(plans.values())


def plan_text(plan: Plan) -> str:
    """One line: who reports, at which keep rates, in which time and at which energy."""
    heard = plan.keep[plan.reports]
    rates = f"keep {heard.min():.2f} to {heard.max():.2f}" if heard.size else "nobody is in time"
    if heard.size and plan.ranks is not None:
        own = plan.ranks[plan.reports & (plan.ranks > 0)]
        rates += f", ranks {own.min()} to {own.max()}" if own.size else ""
    return (
        f"{plan.name:22s} bound {plan.bound:.4f}, {plan.reports.sum()} of {plan.selected.sum()} report, {rates}, "
        f"round {plan.round_s:.2f} s, {plan.round_j:.2f} J"
    )


def require_ranks(instance: Instance, shape: AdapterShape) -> None:
    """Make sure that every row of the devices' menus is a LoRA rank that the adapter can be cut to.

    Parameters
    ----------
    instance
        The cell.
    shape
        Of the adapter that is trained.

    Raises
    ------
    InputError
        Names every device and row of which it is not so.
    """
    faults = []
    for name, menu in zip(instance.device_names, instance.adapter_options or (), strict=False):
        for row in menu or ():
            try:
                if rank_of_label(row.label) > shape.rank:
                    allowed = f"at most r={shape.rank}, the rank of the adapter that is trained (--rank)"
                    faults.append(Fault(name, "adapter_options", row.label, allowed))
            except ValueError as error:
                faults.append(Fault(name, "adapter_options", row.label, str(error)))
    if faults:
        raise InputError("validation", faults)


def payload_note(instance: Instance, shape: AdapterShape) -> str | None:
    """Say where a cell counts on another upload than the adapter makes that is trained, and which counts for what.

    Parameters
    ----------
    instance
        The cell.
    shape
        Of the adapter (:func:`edgealloc.models.training.task.adapter_shape`).

    Returns
    -------
    str or None
        None where both agree for every device.

    Raises
    ------
    InputError
        As :func:`require_ranks`.
    """
    require_ranks(instance, shape)
    menus = instance.adapter_options or (None,) * instance.num_devices
    differ = []
    for name, real in (("D0", shape.payload_fixed_bits), ("D1", shape.payload_lora_bits)):
        field = "payload_fixed_bits" if name == "D0" else "payload_lora_bits"
        counted = [name == "D0" or menu is None for menu in menus]  # a menu's rows bring their own D1
        planned = np.unique(getattr(instance, field)[counted])
        if planned.size and not np.allclose(planned, real, rtol=1e-6, atol=0.5):
            counts = " to ".join(f"{bits:,.0f}" for bits in dict.fromkeys((planned[0], planned[-1])))
            differ.append(f"{name} ({field}) is {counts} bit in the cell, {real:,} bit in the adapter")
    rows = {(row.label, row.payload_lora_bits) for menu in menus for row in menu or ()}
    for label, bits in sorted(rows):
        real = shape.of_rank(rank_of_label(label)).payload_lora_bits
        if not np.isclose(bits, real, rtol=1e-6, atol=0.5):
            differ.append(f"D1 of {label} is {bits:,.0f} bit in the cell, {real:,} bit in the adapter")
    if not differ:
        return None
    return (
        f"the cell counts on another adapter than the one that is trained: {'; '.join(differ)}. Keep rates, "
        "seconds, joules and bounds are those of the cell; losses and uploaded bits are those of the adapter"
    )


def verdict(seen: Validation) -> str:
    """Say what won, at the end and at the best round, and by how much against the first plan, with intervals."""
    lines = []
    reference = seen.finals[0]["plan"]
    for measure, words in (("test_loss", "at the end"), ("best_test_loss", "stopped at the best validation loss")):
        trained = [row for row in seen.table() if math.isfinite(row[measure])]
        if not trained:
            lines.append(f"least test loss {words}: none, for runs of every plan diverged")
            continue
        best = min(trained, key=lambda row: row[measure])
        lines.append(
            f"least test loss {words}: {best['plan']}, {best[measure]:.3f} +- {best[f'{measure}_ci95']:.3f}"
        )
        for r in seen.against(reference, measure):
            if math.isnan(r["difference"]):
                lines.append(f"  {r['plan']} - {reference}: not compared, a run diverged")
                continue
            lines.append(
                f"  {r['plan']} - {reference}: {r['difference']:+.4f} +- {r['ci95']:.4f} nats "
                f"(95 %, paired; lower in {r['better_in']} of {r['seeds']} seeds)"
            )
    lines += [f"{r['plan']}, seed {r['seed']}: diverged, {r['reason']}" for r in seen.finals if r["reason"]]
    return "\n".join(lines)


def save(
    seen: Validation,
    folder: Path,
    title: str,
    slack: float = 0.0,
    *,
    name: str = "validation",
    note: str | None = None,
) -> list[Path]:
    """Write the final scores and the curves as CSV, the table and verdict as Markdown, and one page of figures.

    Without matplotlib there is no figure.

    Parameters
    ----------
    seen
        The trained plans.
    folder
        Where to.
    title
        Of the figure.
    slack
        Of the calibration, in nats; taken off the bound in the figure.
    name
        Of the files, without ending.
    note
        What stands below the table, for example :func:`payload_note`.
    """
    make_folder(folder)
    *paths, picture = files_of(folder, name)
    for path, frame in ((paths[0], seen.to_frame()), (paths[1], seen.curve_frame())):
        write_file(frame.to_csv(index=False, lineterminator="\n"), path)
    said = f"\n{note}\n" if note else ""
    write_file(f"{markdown(seen)}{said}\n```\n{verdict(seen)}\n```\n", paths[2])
    try:
        from edgealloc.models.trials.picture import plot_validation

        page = plot_validation(seen, title, slack)
    except MissingPackageError:
        return paths
    return [*paths, save_figure(page, picture, dpi=100)]


def files_of(folder: Path, name: str = "validation") -> list[Path]:
    """Where :func:`save` writes: scores, curves, table and picture."""
    return [folder / f"{name}{ending}" for ending in (".csv", "-curves.csv", ".md", ".png")]
