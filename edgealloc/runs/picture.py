"""Pictures of runs: predicted loss against rounds with what is proven, and the front of loss against a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import Fault, InputError, shown
from edgealloc.report.canvas import axes_for
from edgealloc.report.style import PALETTE, Size, font_pt
from edgealloc.runs.plan import RunPlan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_rounds", "plot_run_front"]


def plot_rounds(plan: RunPlan, *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """Predicted loss against rounds under the plan's allocation, and what is proven of every number of rounds.

    The step line is the bound of the intervals that were solved; the chosen number of rounds is marked. Before
    ``rounds`` the curve is what is predicted on the way, behind it what would come of going on; dotted where that
    breaks a budget.

    Parameters
    ----------
    plan
        A plan for the least loss.
    ax
        Axes to draw on; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    StatusError, MissingPackageError
        Without a plan; without matplotlib.
    InputError
        For an unknown size, or what is no plan.
    """
    given: Any = plan
    if not isinstance(given, RunPlan):
        allowed = "a RunPlan, from edgealloc.plan_run"
        raise InputError("picture", [Fault("arguments", "plan", shown(given), allowed)])
    result = plan.raise_for_status().result
    assert result is not None
    assert result.allocation is not None
    figure, axes = axes_for(ax, size)
    last = min(plan.span.last, max(3 * plan.rounds, plan.span.first + 9))
    counts = np.arange(plan.span.first, last + 1)
    reach = plan.rounds  # so many rounds of this allocation the budgets hold
    while reach < last and not plan.run.single(reach + 1).violations(result.allocation):
        reach += 1
    loss = plan.run.loss(counts, result.allocation)
    inside = counts <= reach
    axes.plot(counts[inside], loss[inside], color=PALETTE["blue"], label="under this allocation")
    beyond = counts >= reach
    if beyond.sum() > 1:
        label = "beyond the budgets"
        axes.plot(counts[beyond], loss[beyond], color=PALETTE["blue"], linestyle=":", label=label)
    bound = np.full(len(counts), -np.inf)
    for piece in plan.pieces if plan.minimise == "loss" else ():
        inside = (counts >= piece.interval.first) & (counts <= piece.interval.last)
        bound[inside] = np.maximum(bound[inside], piece.bound)
    if np.isfinite(bound).any():
        proven = np.where(np.isfinite(bound), bound, np.nan)
        axes.step(counts, proven, where="mid", color=PALETTE["grey"], linestyle="--", label="proven for every run")
    axes.plot([plan.rounds], [plan.loss], color=PALETTE["red"], marker="o", linestyle="", label="the plan")
    axes.set_xlabel("rounds")
    axes.set_ylabel("predicted loss [nats]")
    axes.legend(fontsize=font_pt(size) - 1.0, frameon=False)
    return figure


def plot_run_front(plans: Sequence[RunPlan], *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """Predicted loss against the time of all rounds together, shaded down to what is proven; rounds beside points.

    Parameters
    ----------
    plans
        For the least loss, with ``time_s`` given, or with energy totals where no time is.
    ax
        Axes to draw on; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InputError
        When plans have no such budget, or are for something else.
    MissingPackageError
        Without matplotlib.
    """
    given: Any = plans
    if not isinstance(given, Sequence) or not all(isinstance(plan, RunPlan) for plan in given):
        raise InputError("front", [Fault("arguments", "plans", shown(given), "a list of RunPlans")])
    timed = all(plan.run.time_s is not None for plan in plans)
    spent = all(plan.run.energy_j is not None for plan in plans)
    if not plans or not (timed or spent) or any(plan.minimise != "loss" for plan in plans):
        allowed = "some, for the least loss, all with a time or all with energy for all rounds together"
        raise InputError("front", [Fault("plans", "budgets", f"{len(plans)} plans", allowed)])
    values = [plan.run.time_s if timed else float(np.mean(plan.run.energy_j)) for plan in plans]  # type: ignore[arg-type]
    if timed and spent and len(set(values)) == 1:
        timed, values = False, [float(np.mean(plan.run.energy_j)) for plan in plans]  # type: ignore[arg-type]
    order = np.argsort(np.array(values, dtype=np.float64), kind="stable")
    budget = np.array(values, dtype=np.float64)[order]
    loss = np.array([plan.loss if plan.result is not None else np.nan for plan in plans])[order]
    lower = np.array([plan.lower_bound if np.isfinite(plan.lower_bound) else np.nan for plan in plans])[order]
    figure, axes = axes_for(ax, size)
    axes.plot(budget, loss, color=PALETTE["blue"], marker="o", label="least predicted loss")
    axes.fill_between(budget, lower, loss, color=PALETTE["blue"], alpha=0.15, linewidth=0.0)
    for i, k in enumerate(order.tolist()):
        if np.isfinite(loss[i]):
            axes.annotate(
                f"R = {plans[k].rounds}", (budget[i], loss[i]), textcoords="offset points", xytext=(4, 4)
            )
    axes.set_xlabel("time of all rounds [s]" if timed else "mean energy of a device in all rounds [J]")
    axes.set_ylabel("predicted loss [nats]")
    axes.legend(fontsize=font_pt(size) - 1.0, frameon=False)
    return figure
