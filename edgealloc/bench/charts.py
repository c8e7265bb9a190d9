"""Charts of a sweep: bounds, gaps and times, one colour and marker a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.bench.tables import LOCAL, method_label
from edgealloc.errors import needs
from edgealloc.files.disk import make_folder
from edgealloc.report.canvas import caption, save_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw_bench", "plot_gaps", "plot_sweep", "plot_times"]


COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#7F7F7F", "#0072B2", "#D55E00", "#CC79A7")


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")


def _figure(width: float = 6.4, height: float = 4.2) -> Figure:
    needs("matplotlib", "plot", "a figure")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _style(i: int, method: str = "") -> dict[str, Any]:
    hollow = {"markerfacecolor": "none", "markersize": 8} if method in LOCAL else {}
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": ("-", "--")[i // len(COLOURS) % 2],
        "markersize": 5,
        "linewidth": 1.3,
        **hollow,  # these lie on the optimum, and must let it be seen
    }


def plot_sweep(frame: pd.DataFrame) -> Figure:
    """The bound against what a suite sweeps: mean over the cells on which a method is feasible throughout.

    A method that fails on some cell of a point has no marker there; the legend says on how many cells it did. The
    axis ends three ranges of the best method up; the legend says how many points lie above.
    """
    accesses = list(dict.fromkeys(frame["access"]))
    fig = _figure(5.0 * len(accesses) + 3.0, 4.2)
    panels = np.atleast_1d(fig.subplots(1, len(accesses), squeeze=False)[0])
    methods = list(dict.fromkeys(frame["method"]))
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
        for i, method in enumerate(methods):
            line = drawn.loc[[method]].droplevel("method") if method in drawn.index else drawn.iloc[:0]
            handles[method] = axes.plot(line.index, line, **_style(i, method))[0]
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
        labels.append(caption(method_label(method)) + (f" ({', '.join(notes)})" if notes else ""))
    fig.legend(list(handles.values()), labels, loc="outside right upper", fontsize=8, frameon=False)
    return fig


def plot_gaps(frame: pd.DataFrame) -> Figure:
    """Distribution of the excess gap against the best proven bound, methods with P-SCA first."""
    fig = _figure()
    axes = fig.subplots()
    known = frame[frame["excess_gap"].notna()]
    order = list(dict.fromkeys(known["method"]))
    shown = [m for m in order if m.partition(":")[0] in LOCAL] + [m for m in order if m.startswith("baseline:")]
    for i, method in enumerate(shown):
        gaps = np.sort(100.0 * known.loc[known["method"] == method, "excess_gap"].to_numpy(dtype=np.float64))
        share = np.arange(1, len(gaps) + 1) / len(gaps)
        style = {k: v for k, v in _style(i + 1).items() if k not in ("marker", "markersize")}
        style["linewidth"] = 3.0 if method == "psca" else 1.3  # psca+ often lies on it
        axes.step(
            np.maximum(gaps, 1e-3),
            100.0 * share,
            where="post",
            label=f"{caption(method_label(method))} ({len(gaps)})",
            **style,
        )
    axes.set_xscale("log")
    axes.set_xlim(left=9e-4)
    axes.set_ylim(0, 101)
    for percent in (1.0, 5.0, 10.0):
        axes.axvline(percent, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("excess gap to the best proven bound [%]; 0.001 stands for less")
    axes.set_ylabel("share of cells [%]")
    axes.grid(color="0.93", which="major")
    fig.legend(
        loc="outside right upper", fontsize=8, frameon=False, title="method (feasible cells)", title_fontsize=8
    )
    return fig


def plot_times(frame: pd.DataFrame) -> Figure:
    """Median time against size, log-log, with the range over cells; of exact methods also to P-SCA's quality."""
    fig = _figure()
    axes = fig.subplots()
    lines = [(m, "seconds", caption(method_label(m))) for m in dict.fromkeys(frame["method"])]
    if "psca" in set(frame["method"]):
        lines += [
            (m, "seconds_to_psca", f"{caption(method_label(m))}: as good as P-SCA")
            for m, _, _ in lines
            if m not in LOCAL
        ]
    for i, (method, column, words) in enumerate(lines):
        mine = frame[(frame["method"] == method) & frame["objective"].notna()]
        # where it never was as good, it took longer than all its seconds
        times = mine[column].fillna(mine["seconds"]).groupby(mine["x"])
        if len(times) == 0:
            continue
        middle, low, high = times.median(), times.min(), times.max()
        axes.errorbar(
            middle.index, middle, yerr=[middle - low, high - middle], capsize=2, label=words, **_style(i, method)
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = frame.drop_duplicates("x").sort_values("x")
    names = [f"({k:.0f},{m:.0f})" for k, m in zip(sizes["num_devices"], sizes["num_subcarriers"], strict=True)]
    axes.set_xticks(sizes["x"].to_list(), names)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("(devices $K$, sub-carriers $M$), at $K M$ on a logarithmic axis")
    axes.set_ylabel("time [s]: median, bars from least to most")
    axes.grid(color="0.92", which="both")
    axes.legend(fontsize=8, frameon=False)
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
