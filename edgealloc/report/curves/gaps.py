"""How far methods stay from the proven optimum, over many cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.report.canvas import axes_for, caption
from edgealloc.report.style import Size, font_pt, label_of, looks_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_gaps"]

_LEAST = 1e-3  # percent; less is drawn here


def plot_gaps(frame: pd.DataFrame, *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """Distribution of the excess gap against the best proven bound: on what share of cells a method is so good.

    Parameters
    ----------
    frame
        With the columns ``method`` and ``excess_gap``, a row per cell and method; of
        :func:`edgealloc.bench.sweep.frame_of`, or one's own. Rows without a gap count for nothing. P-SCA comes
        first, then baselines, then others; ``auto``, which is what gaps are measured by, is left out.
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
        For an unknown size, and where no method has a gap.
    MissingPackageError
        Without matplotlib.
    """
    figure, axes = axes_for(ax, size)
    known = frame[frame["excess_gap"].notna()]
    ranks = ("psca", "psca+", "baseline")
    methods = [method for method in dict.fromkeys(known["method"]) if method != "auto"]
    if not methods:
        raise InputError(
            "gaps", [Fault("frame", "excess_gap", "none of any method", "at least one that is a number")]
        )
    families = {method: method.partition(":")[0] for method in methods}
    methods.sort(key=lambda name: ranks.index(families[name]) if families[name] in ranks else len(ranks))
    looks = looks_of(methods, markers=False)
    for method in methods:
        gaps = np.sort(100.0 * known.loc[known["method"] == method, "excess_gap"].to_numpy(dtype=np.float64))
        share = np.arange(len(gaps) + 1) / len(gaps)
        x = np.concatenate([[_LEAST], np.maximum(gaps, _LEAST)])
        label = f"{caption(label_of(method))} ({len(gaps)})"
        thick = {"linewidth": 2.6} if method == "psca" else {}  # psca+ often lies on it
        axes.step(x, 100.0 * share, where="post", label=label, **looks[method] | thick)
    axes.set_xscale("log")
    axes.set_xlim(left=0.9 * _LEAST)
    axes.set_ylim(0.0, 101.0)
    for percent in (1.0, 5.0, 10.0):
        axes.axvline(percent, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel(f"excess gap to the best proven bound [%]; {_LEAST:g} stands for less")
    axes.set_ylabel("share of cells [%]")
    points = font_pt(size) - 1.0
    words = {"title": "method (cells)", "title_fontsize": points, "fontsize": points, "frameon": False}
    if ax is None and size != "column":
        figure.legend(loc="outside right upper", **words)
    else:
        axes.legend(**words)
    return figure
