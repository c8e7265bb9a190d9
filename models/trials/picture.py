"""One page that shows a validation: test loss against rounds, seconds and joules, and the bound's word on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import needs
from edgealloc.models.trials.sweep import half_width
from edgealloc.models.trials.validate import Validation
from edgealloc.report.canvas import caption
from edgealloc.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = "osD^vPX*"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")  # Okabe and Ito's
_BAND_SEEDS = 3


def plot_validation(validation: Validation, title: str = "", slack: float = 0.0) -> Figure:
    """Draw four panels; lines are means over seeds, bands and bars 95 % confidence intervals, cut at the frame.

    With fewer than three seeds an interval says nothing, and thin lines show the runs themselves. The panel of the
    bound shows, per plan, what was predicted and what was measured.

    Parameters
    ----------
    validation
        The trained plans.
    title
        Of the figure.
    slack
        The calibration's, in nats; taken off the bound and its stability term.

    Returns
    -------
    matplotlib.figure.Figure
        Not yet written to any file.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    """
    needs("matplotlib", "plot", "the validation figure")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    names = [row["plan"] for row in validation.table()]
    panels = (
        (axes[0, 0], "round", "round"),
        (axes[0, 1], "seconds", "time in s"),
        (axes[1, 0], "joules", "energy in J"),
    )
    for axis, key, label in panels:
        for i, name in enumerate(names):
            _curve(axis, validation, name, key, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        axis.set(xlabel=label, ylabel="test loss in nats")
        axis.set_xlim(left=0)
        _frame_means(axis, np.concatenate([line.get_ydata() for line in axis.get_lines()] or [np.array([])]))
        axis.grid(alpha=0.3)
    if validation.curves:
        axes[0, 0].legend(fontsize=9)
    _bound(axes[1, 1], validation, slack)
    figure.suptitle(title)
    return figure


def _curve(axis: Any, validation: Validation, name: str, key: str, colour: str, marker: str) -> None:
    """Draw one plan's test loss over ``key``, which is ``round``, ``seconds`` or ``joules``."""
    records = [r for r in validation.curves if r["plan"] == name and "test_loss" in r]
    if not records:  # no run got as far as a round
        return
    rounds = sorted({r["round"] for r in records})
    groups = [[r for r in records if r["round"] == number] for number in rounds]
    x = np.array([group[0][key] for group in groups])
    mean = np.array([np.mean([r["test_loss"] for r in group]) for group in groups])
    width = np.nan_to_num([half_width([r["test_loss"] for r in group]) for group in groups])
    axis.plot(x, mean, color=colour, marker=marker, markersize=4, label=caption(name))
    if min(map(len, groups)) >= _BAND_SEEDS:
        axis.fill_between(x, mean - width, mean + width, color=colour, alpha=0.15, linewidth=0)
        return
    for seed in {r["seed"] for r in records}:
        run = [r for r in records if r["seed"] == seed]
        axis.plot([r[key] for r in run], [r["test_loss"] for r in run], color=colour, linewidth=0.6, alpha=0.6)


def _frame_means(axis: Any, means: FloatArray) -> None:
    """Set the scale by the means: the intervals of two seeds are thirteen standard errors wide, and run off."""
    means = means[np.isfinite(means)]
    if not means.size:
        return
    low, high = float(means.min()), float(means.max())
    margin = 0.25 * (high - low) + 0.02
    axis.set_ylim(low - margin, high + margin)


def _bound(axis: Any, validation: Validation, slack: float) -> None:
    """Draw what the bound says of each plan beside what was measured, in nats."""
    rows = validation.table()
    place = np.arange(len(rows))
    loss = np.array([r["test_loss"] for r in rows])
    width = np.nan_to_num([r["test_loss_ci95"] for r in rows])
    axis.errorbar(place - 0.15, loss, width, fmt="o", capsize=3, label="test loss")
    points = (
        ([r["bound"] - slack for r in rows], "x", "bound G - slack"),
        ([r["measured_gap"] for r in rows], "s", "test - train loss, measured"),
        ([r["stability"] - slack for r in rows], "+", "stability term of G - slack"),
    )
    for i, (values, marker, label) in enumerate(points):
        axis.plot(place - 0.05 + 0.1 * i, values, marker, markersize=5 + 3 * (marker != "s"), label=label)
    _frame_means(axis, np.concatenate([loss, *(values for values, _, _ in points)]))
    axis.set_xticks(place, [caption(r["plan"]) for r in rows], rotation=20, ha="right")
    axis.set(ylabel="nats")
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize=9)
