"""How a solve went: bounds and incumbents of exact methods, the convergence of P-SCA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.report.canvas import axes_for, caption, figure_of, given_axes, new_figure
from edgealloc.report.style import PALETTE, Size, font_pt, label_of, look_of, looks_of, width_in
from edgealloc.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_bounds", "plot_convergence"]

Against = Literal["seconds", "nodes", "iteration"]
_WORDS = {"seconds": "time [s]", "nodes": "nodes of the search tree", "iteration": "iteration"}
_SMALLEST = 1e-12  # residuals below are drawn here


def plot_bounds(
    results: Result | Sequence[Result],
    against: Against = "seconds",
    *,
    ax: Axes | None = None,
    size: Size = "screen",
) -> Figure:
    """Incumbent and proven bound of each method, as they close in on each other; the space between is shaded.

    A method that proves nothing, or keeps no trace, is a point: what it ended with. The axis ends three times the
    range that the proven bounds span above the best allocation; the legend names the values that lie higher.

    Parameters
    ----------
    results
        Of one instance, one per method.
    against
        Time in s, nodes or iterations.
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
        Without a result, and for an unknown ``against`` or ``size``.
    MissingPackageError
        Without matplotlib.
    """
    results = [results] if isinstance(results, Result) else list(results)
    if not results:
        raise InputError("bounds", [Fault("options", "results", "none", "at least one")])
    if against not in get_args(Against):
        fault = Fault("options", "against", repr(against), ", ".join(get_args(Against)))
        raise InputError("options", [fault])
    figure, axes = axes_for(ax, size)
    looks = looks_of(result.method for result in results)
    courses = [_courses(result, against) for result in results]
    top = _top(courses)
    for result, (x, upper, lower) in zip(results, courses, strict=True):
        look, label = looks[result.method], caption(label_of(result.method))
        if math.isfinite(result.rel_gap):
            label += f", gap {result.rel_gap:.1g}"
        if not result.status.has_allocation:
            label += f", {result.status.value}"
        elif result.objective > top:
            label += f", {result.objective:.4g}"
        if len(x) < 2:
            axes.plot(x, upper, label=label, **look | {"linestyle": ""})
            continue
        look = {key: value for key, value in look.items() if not key.startswith("marker")}
        axes.step(x, upper, where="post", label=label, **look)
        axes.step(x, lower, where="post", **look)
        known = np.isfinite(upper) & np.isfinite(lower)
        axes.fill_between(
            x, lower, upper, where=known, step="post", color=look["color"], alpha=0.12, linewidth=0.0
        )
    if math.isfinite(top):
        axes.set_ylim(top=top)
    axes.set_xlabel(_WORDS[against])
    axes.set_ylabel("generalisation bound $G$")
    axes.legend(fontsize=font_pt(size) - 1.0, frameon=False, title="incumbent above, proven bound below")
    axes.get_legend().get_title().set_fontsize(font_pt(size) - 1.0)  # type: ignore[union-attr]
    return figure


def _top(courses: Sequence[tuple[FloatArray, FloatArray, FloatArray]]) -> float:
    """Where the axis ends: infinite where nothing is proven, so that there is no range to go by."""
    upper = np.concatenate([course[1] for course in courses])
    lower = np.concatenate([course[2] for course in courses])
    if not (np.isfinite(upper).any() and np.isfinite(lower).any()):
        return math.inf
    best = float(np.nanmin(upper))
    span = best - float(np.nanmin(lower))
    highest = float(np.nanmax(upper))
    return math.inf if span <= 0.0 or highest <= best + 3.0 * span else best + 3.0 * span


def _courses(result: Result, against: Against) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rising x, and incumbents and bounds there with NaN where there is none; the last point is the result's."""
    proves = math.isfinite(result.lower_bound)
    rows = [s for s in result.trace if s.step is None] if proves else []  # the objective of P-SCA is no incumbent
    last = {"seconds": result.seconds, "nodes": result.nodes, "iteration": len(result.trace) + 1}[against]
    x = np.array([*(getattr(s, against) for s in rows), last], dtype=np.float64)
    upper = np.array([*(s.objective for s in rows), result.objective], dtype=np.float64)
    lower = np.array([*(s.lower_bound for s in rows), result.lower_bound], dtype=np.float64)
    upper, lower = (np.where(np.isfinite(values), values, np.nan) for values in (upper, lower))
    # A result is told once more than its trace: after the last snapshot, never before it.
    return np.maximum.accumulate(x), upper, lower


def plot_convergence(
    result: Result,
    proven: Result | None = None,
    *,
    ax: Sequence[Axes] | None = None,
    size: Size = "screen",
) -> Figure:
    """P-SCA step by step: its penalised objective above; penalty and residuals, on a logarithmic axis, below.

    Parameters
    ----------
    result
        Of ``psca`` or ``psca+``.
    proven
        A result with a proven bound, to compare with.
    ax
        Two axes to draw on, one above the other; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InputError
        For a result without steps of P-SCA, an unknown size, or axes that are not two.
    MissingPackageError
        Without matplotlib.
    """
    known = [(at.iteration, at.objective, at.step) for at in result.trace if at.step is not None]
    if not known:
        fault = Fault("result", "trace", f"of {result.method!r}", "that of psca or psca+")
        raise InputError("convergence of P-SCA", [fault])
    width = width_in(size)
    parts: Any = new_figure(width, 0.9 * width).subplots(2, 1, sharex=True) if ax is None else ax
    top, bottom = given_axes(parts, 2, size)
    points = font_pt(size)
    at = np.array([row[0] for row in known])
    value = np.array([row[1] for row in known])
    run = np.array([(row[2].start, row[2].nudges) for row in known])
    look = look_of(result.method, markers=False)
    cuts = np.flatnonzero(np.any(np.diff(run, axis=0), axis=1)) + 1
    for i, part in enumerate(np.split(np.arange(len(at)), cuts)):
        label = "penalised objective" if i == 0 else None
        top.plot(at[part], value[part], label=label, marker=".", markersize=4.0, **look)
    if result.status.has_allocation:
        words = f"its allocation, {result.objective:.6g}"
        top.plot(
            at[-1], result.objective, marker="*", linestyle="", markersize=9.0, color=look["color"], label=words
        )
    if proven is not None:
        words = f"proven by {caption(label_of(proven.method))}, {proven.lower_bound:.6g}"
        top.axhline(proven.lower_bound, label=words, **look_of(proven.method, markers=False))
    top.set_ylabel("bound $G$ + penalty")
    above: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "frameon": False, "columnspacing": 1.2}
    top.legend(fontsize=points - 1.0, ncols=2 if size == "column" else 3, **above)
    rows = {
        "penalty": ("black", "-", [step.penalty for *_, step in known]),
        "binaries that are none": ("orange", (0, (5, 2)), [step.binary_residual for *_, step in known]),
        "payload unsent": ("red", (0, (1, 1.2)), [step.unsent for *_, step in known]),
        "dual residual": ("sky", (0, (6, 1.5, 1, 1.5)), [step.dual_residual for *_, step in known]),
    }
    for label, (colour, dash, numbers) in rows.items():
        shown = np.asarray(numbers, dtype=np.float64)
        if label == "penalty":
            shown = np.where(shown > 0.0, shown, np.nan)
        elif not np.any(shown > 0.0):
            continue  # nothing of the kind in this problem
        bottom.plot(
            at, np.maximum(shown, _SMALLEST), color=PALETTE[colour], linestyle=dash, linewidth=1.3, label=label
        )
    bottom.set_yscale("log")
    bottom.set_xlabel("iteration")
    bottom.set_ylabel("penalty, residuals")
    bottom.legend(fontsize=points - 1.0, ncols=2 if size == "column" else 4, **above)
    return figure_of(top)
