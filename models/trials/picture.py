"""One page that shows a validation: test loss against rounds, seconds and joules, and the bound's word on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.models.trials.sweep import half_width
from edgealloc.models.trials.validate import Validation
from edgealloc.report.canvas import canvas_for, caption, entitle, figure_of, given_axes
from edgealloc.report.style import PALETTE, Size, font_pt, looks_of
from edgealloc.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BAND_SEEDS = 3


def plot_validation(
    validation: Validation,
    title: str = "",
    slack: float = 0.0,
    *,
    ax: Sequence[Axes] | None = None,
    size: Size = "screen",
) -> Figure:
    """Draw four panels; lines are means over seeds, bands and bars 95 % confidence intervals, cut at the frame.

    With fewer than three seeds an interval says nothing, and thin lines show the runs themselves. The panel of the
    bound shows, per plan, what was predicted and what was measured.

    Parameters
    ----------
    validation
        The trained plans.
    title
        Of a new figure on the screen; not markup (:func:`~edgealloc.report.canvas.caption`).
    slack
        The calibration's, in nats; taken off the bound and its stability term.
    ax
        Four axes to draw on: over rounds, seconds, joules, and the bound's; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        Not yet written to any file.

    Raises
    ------
    InputError
        For an unknown size, and axes that are not four.
    MissingPackageError
        Without matplotlib.
    """
    parts: Any = canvas_for(size, 11.0, 8.0).subplots(2, 2) if ax is None else ax
    axes = given_axes(parts, 4, size)
    figure = figure_of(axes[0])
    looks = looks_of(row["plan"] for row in validation.table())
    for axis, key, label in zip(
        axes, ("round", "seconds", "joules"), ("round", "time [s]", "energy [J]"), strict=False
    ):
        for name, look in looks.items():
            _curve(axis, validation, name, key, look)
        axis.set(xlabel=label, ylabel="test loss [nats]")
        axis.set_xlim(left=0)
        _frame_means(axis, np.concatenate([line.get_ydata() for line in axis.get_lines()] or [np.array([])]))
    if validation.curves:
        axes[0].legend(fontsize=font_pt(size) - 1.0)
    _bound(axes[3], validation, slack, size)
    entitle(figure, title, ax, size)
    return figure


def _curve(axis: Any, validation: Validation, name: str, key: str, look: Mapping[str, Any]) -> None:
    """Draw one plan's test loss over ``key``, which is ``round``, ``seconds`` or ``joules``."""
    records = [r for r in validation.curves if r["plan"] == name and "test_loss" in r]
    if not records:  # no run got as far as a round
        return
    rounds = sorted({r["round"] for r in records})
    groups = [[r for r in records if r["round"] == number] for number in rounds]
    x = np.array([group[0][key] for group in groups])
    mean = np.array([np.mean([r["test_loss"] for r in group]) for group in groups])
    width = np.nan_to_num([half_width([r["test_loss"] for r in group]) for group in groups])
    colour = look["color"]
    axis.plot(x, mean, label=caption(name), **look)
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


def _bound(axis: Any, validation: Validation, slack: float, size: Size) -> None:
    """Draw what the bound says of each plan beside what was measured, in nats."""
    rows = validation.table()
    place = np.arange(len(rows))
    loss = np.array([r["test_loss"] for r in rows])
    width = np.nan_to_num([r["test_loss_ci95"] for r in rows])
    axis.errorbar(place - 0.15, loss, width, fmt="o", color=PALETTE["black"], capsize=3, label="test loss")
    points = (
        ([r["bound"] - slack for r in rows], "x", "blue", "bound G - slack"),
        ([r["measured_gap"] for r in rows], "s", "orange", "test - train loss, measured"),
        ([r["stability"] - slack for r in rows], "+", "red", "stability term of G - slack"),
    )
    for i, (values, marker, colour, label) in enumerate(points):
        mark = {"marker": marker, "linestyle": "", "color": PALETTE[colour]}
        axis.plot(place - 0.05 + 0.1 * i, values, markersize=5 + 3 * (marker != "s"), label=label, **mark)
    _frame_means(axis, np.concatenate([loss, *(values for values, *_ in points)]))
    axis.set_xticks(place, [caption(r["plan"]) for r in rows], rotation=20, ha="right")
    axis.set(ylabel="[nats]")
    axis.grid(visible=False, axis="x")
    axis.legend(fontsize=font_pt(size) - 1.0)
