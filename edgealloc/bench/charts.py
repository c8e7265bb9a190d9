"""Charts of a sweep: bounds and times; gaps are in :mod:`edgealloc.report.curves.gaps`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.bench.tables import LOCAL
from edgealloc.files.disk import make_folder
from edgealloc.report.canvas import axes_for, caption, new_figure, save_figure
from edgealloc.report.curves.gaps import plot_gaps
from edgealloc.report.style import Size, font_pt, label_of, look_of, looks_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_bench", "plot_sweep", "plot_times"]


def plot_sweep(frame: pd.DataFrame) -> Figure:
    """The bound against what a suite sweeps: mean over the cells on which a method is feasible throughout.

    A method that fails on some cell of a point has no marker there; the legend says on how many cells it did. The
    axis ends three ranges of the best method up; the legend says how many points lie above.
    """
    accesses = list(dict.fromkeys(frame["access"]))
    fig = new_figure(5.0 * len(accesses) + 3.0, 4.2)
    panels = np.atleast_1d(fig.subplots(1, len(accesses), squeeze=False)[0])
    methods = list(dict.fromkeys(frame["method"]))
    looks = looks_of(methods)
    points = frame.groupby(["access", "method", "x"])["objective"].agg(["mean", "count", "size"])
    means = points.loc[points["count"] == points["size"], "mean"]  # feasible on every cell of the point
    handles: dict[str, Any] = {}
    above = dict.fromkeys(methods, 0)
    for axes, access in zip(panels, accesses, strict=True):
        drawn = means.loc[access]
        best = drawn.groupby("x").min()
        low, high = float(best.min()), float(best.max())
        span = max(high - low, 1e-3 * abs(high))
        top = min(float(drawn.max()), high + 2.0 * span) + 0.05 * span
        for method in methods:
            line = drawn.loc[[method]].droplevel("method") if method in drawn.index else drawn.iloc[:0]
            handles[method] = axes.plot(line.index, line, **looks[method])[0]
            above[method] += int((line > top).sum())
        axes.set_ylim(low - 0.05 * span, top)
        axes.set_title(
            {"ofdma": "OFDMA", "fdma": "FDMA", "rb": "resource blocks"}.get(access, access), fontsize=10
        )
        axes.set_xlabel(str(frame.loc[frame["access"] == access, "x_label"].iloc[0]))
        axes.grid(color="0.92")
    several = bool(points["size"].max() > 1)
    panels[0].set_ylabel("generalisation bound $G$" + (", mean of the cells" if several else ""))
    labels = []
    for method in methods:
        mine = frame.loc[frame["method"] == method, "objective"]
        notes = [f"infeasible on {mine.isna().sum()} of {len(mine)}"] if mine.isna().any() else []
        notes += [f"{above[method]} above"] if above[method] else []
        labels.append(caption(label_of(method)) + (f" ({', '.join(notes)})" if notes else ""))
    fig.legend(list(handles.values()), labels, loc="outside right upper", fontsize=8, frameon=False)
    return fig


def plot_times(frame: pd.DataFrame, *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """Median time against size, log-log, with the range over cells; of exact methods also to P-SCA's quality."""
    fig, axes = axes_for(ax, size)
    lines = [(m, "seconds", caption(label_of(m))) for m in dict.fromkeys(frame["method"])]
    if "psca" in set(frame["method"]):
        lines += [
            (m, "seconds_to_psca", f"{caption(label_of(m))}: as good as P-SCA")
            for m, _, _ in lines
            if m not in LOCAL
        ]
    for method, column, words in lines:
        mine = frame[(frame["method"] == method) & frame["objective"].notna()]
        # where it never was as good, it took longer than all its seconds
        times = mine[column].fillna(mine["seconds"]).groupby(mine["x"])
        if len(times) == 0:
            continue
        middle, low, high = times.median(), times.min(), times.max()
        look = look_of(method)
        if column != "seconds":  # the same method, not to its end
            look |= {"linestyle": ":", "markerfacecolor": "white"}
        axes.errorbar(middle.index, middle, yerr=[middle - low, high - middle], capsize=2, label=words, **look)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = frame.drop_duplicates("x").sort_values("x")
    names = [f"({k:.0f},{m:.0f})" for k, m in zip(sizes["num_devices"], sizes["num_subcarriers"], strict=True)]
    axes.set_xticks(sizes["x"].to_list(), names)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("(devices $K$, sub-carriers $M$), at $K M$ on a logarithmic axis")
    axes.set_ylabel("time [s]: median, bars from least to most")
    axes.legend(fontsize=font_pt(size) - 1.0, frameon=False)
    return fig


def draw_bench(frame: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write the figures that fit a frame: gaps, and a sweep or times where there is an axis."""
    make_folder(folder)
    figures = {}
    if frame["excess_gap"].notna().any():
        figures["gaps"] = plot_gaps(frame)
    if frame["x"].notna().all():
        size = frame["x_label"].iloc[0] == "K M"
        figures["times" if size else "sweep"] = plot_times(frame) if size else plot_sweep(frame)
    return [save_figure(figure, folder / f"{name}-{kind}.png") for kind, figure in figures.items()]
