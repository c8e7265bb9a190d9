"""What a budget is worth: the least bound against spectrum, deadline, energy, power or processor speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.report.canvas import axes_for, caption
from edgealloc.report.style import Size, font_pt, label_of, looks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_front"]

# Budget: (words with the unit, its value in that unit). Budgets of devices are shown by their mean.
_BUDGETS: Mapping[str, tuple[str, Callable[[Instance], float]]] = MappingProxyType(
    {
        "bandwidth_hz": ("spectrum [MHz]", lambda inst: inst.bandwidth_hz / 1e6),
        "latency_s": ("deadline of a round [s]", lambda inst: inst.latency_s),
        "energy_j": ("mean energy budget of a device [J]", lambda inst: float(inst.energy_j.mean())),
        "power_max_w": (
            "mean power limit of a device [mW]",
            lambda inst: 1e3 * float(inst.power_max_w.mean()),
        ),
        "freq_max_hz": (
            "mean fastest clock of a device [GHz]",
            lambda inst: float(inst.freq_max_hz.mean()) / 1e9,
        ),
    }
)


def plot_front(
    results: Sequence[Result],
    resource: str | None = None,
    *,
    ax: Axes | None = None,
    size: Size = "screen",
) -> Figure:
    """The bound at several budgets, a line a method; shaded down to what is proven, infeasible budgets crossed.

    Parameters
    ----------
    results
        From :func:`edgealloc.front`, of one method or of several one after the other.
    resource
        The budget that differs, a field of the instance; found by itself where only one does.
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
        When no budget, or more than one, differs and none is named; for an unknown resource or size.
    MissingPackageError
        Without matplotlib.
    """
    instances = [result.problem.instance for result in results]
    words, value_of = _BUDGETS[_resource(instances, resource)]
    figure, axes = axes_for(ax, size)
    looks = looks_of(result.method for result in results)
    refused: list[float] = []
    for method, look in looks.items():
        mine = [(value_of(r.problem.instance), r) for r in results if r.method == method]
        mine.sort(key=lambda pair: pair[0])
        budget = np.array([x for x, _ in mine])
        bound = np.array([r.objective if r.status.has_allocation else np.nan for _, r in mine])
        lower = np.array([r.lower_bound if np.isfinite(r.lower_bound) else np.nan for _, r in mine])
        nowhere = "" if np.isfinite(bound).any() else " (nowhere feasible)"
        axes.plot(budget, bound, label=caption(label_of(method)) + nowhere, **look)
        axes.fill_between(budget, lower, bound, color=look["color"], alpha=0.15, linewidth=0.0)
        refused += [x for x, r in mine if r.status.value == "infeasible"]
    free = min((r.free_objective for r in results), default=np.nan)
    axes.axhline(free, color="0.4", linewidth=0.9, linestyle=":", label="nothing scarce")
    if refused:  # at the upper edge, whatever the range of the bound is
        spots = sorted(set(refused))
        axes.plot(
            spots,
            np.full(len(spots), 0.97),
            transform=axes.get_xaxis_transform(),
            linestyle="",
            marker="x",
            color="black",
            label="infeasible, proven",
        )
    axes.set_xlabel(words)
    axes.set_ylabel("generalisation bound $G$")
    axes.legend(fontsize=font_pt(size) - 1.0, frameon=False)
    return figure


def _resource(instances: Sequence[Instance], named: str | None) -> str:
    if named is None:
        moving = [key for key in _BUDGETS if len({_BUDGETS[key][1](inst) for inst in instances}) > 1]
        if len(moving) == 1:
            return moving[0]
        found = ", ".join(moving) or "none"
        raise InputError(
            "front", [Fault("results", "budgets that differ", found, "one; or name it: resource='latency_s'")]
        )
    if named not in _BUDGETS:
        raise InputError("front", [Fault("options", "resource", repr(named), ", ".join(_BUDGETS))])
    return named
