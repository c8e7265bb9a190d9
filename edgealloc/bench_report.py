"""Tables and figures of a benchmark frame.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; every line also has its own marker.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw_bench", "plot_gaps", "plot_sweep", "plot_times", "summary", "to_latex", "to_markdown"]

COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
LABELS = {"auto": "proven optimum", "psca": "P-SCA", "psca+": "P-SCA+"}
LOCAL = ("psca", "psca+")


def _label(method: str) -> str:
    family, _, variant = method.partition(":")
    if family == "baseline":
        return variant
    return LABELS.get(family, family) + (f" ({variant})" if variant else "")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per access scheme and method: how often feasible and verified, gaps in percent, median time."""
    rows = []
    for (access, method), part in frame.groupby(["access", "method"], sort=False):
        gaps = 100.0 * part["excess_gap"].dropna().to_numpy(dtype=np.float64)
        rows.append({
            "access": access,
            "method": method,
            "cells": len(part),
            "feasible": int(part["objective"].notna().sum()),
            "with bound": len(gaps),
            "median gap %": float(np.median(gaps)) if len(gaps) else np.nan,
            "95th %": float(np.percentile(gaps, 95)) if len(gaps) else np.nan,
            "worst %": float(gaps.max()) if len(gaps) else np.nan,
            "median s": float(part["seconds"].median()),
        })  # fmt: skip
    import pandas as pd

    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.3g}"
    return str(value)


def to_markdown(table: pd.DataFrame, times: bool = True) -> str:
    """The table in Markdown; without times it is the same on every run."""
    table = table if times else table.drop(columns=[c for c in table.columns if c.endswith(" s")])
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(_text(v) for v in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """The table in LaTeX (booktabs)."""

    def escape(text: str) -> str:
        return text.replace("\\", r"\textbackslash ").replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")

    numeric = [table[c].dtype.kind in "fi" for c in table.columns]
    lines = [r"\begin{tabular}{" + "".join("r" if n else "l" for n in numeric) + "}", r"\toprule"]
    lines += [" & ".join(escape(c) for c in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(escape(_text(v)) for v in row) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _figure(width: float = 6.4, height: float = 4.2) -> Figure:
    if find_spec("matplotlib") is None:
        raise MissingPackageError("matplotlib", "plot", "a figure")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _style(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": ("-", "--")[i // len(COLOURS) % 2],
        "markersize": 5,
        "linewidth": 1.3,
    }


def plot_sweep(frame: pd.DataFrame) -> Figure:
    """The bound against what a suite sweeps: mean over the cells on which a method is feasible throughout.

    A method that fails on some cell of a point has no marker there; the legend says on how many cells it did.
    """
    accesses = list(dict.fromkeys(frame["access"]))
    fig = _figure(5.0 * len(accesses) + 2.2, 4.2)
    panels = np.atleast_1d(fig.subplots(1, len(accesses), squeeze=False)[0])
    methods = list(dict.fromkeys(frame["method"]))
    handles = {}
    for axes, access in zip(panels, accesses, strict=True):
        part = frame[frame["access"] == access]
        for i, method in enumerate(methods):
            mine = part[part["method"] == method]
            whole = mine.groupby("x")["objective"].agg(["mean", "count", "size"])
            full = whole[whole["count"] == whole["size"]]
            (line,) = axes.plot(full.index, full["mean"], **_style(i))
            failed = int(frame.loc[frame["method"] == method, "objective"].isna().sum())
            total = int((frame["method"] == method).sum())
            handles[method] = line, _label(method) + (f" (infeasible on {failed} of {total})" if failed else "")
        axes.set_title(
            {"ofdma": "OFDMA", "fdma": "FDMA", "rb": "resource blocks"}.get(access, access), fontsize=10
        )
        axes.set_xlabel(str(part["x_label"].iloc[0]))
        axes.grid(color="0.92")
    panels[0].set_ylabel("generalisation bound $G$ (mean of cells)")
    lines, labels = zip(*handles.values(), strict=True)
    fig.legend(lines, labels, loc="outside right upper", fontsize=8, frameon=False)
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
        axes.step(
            np.maximum(gaps, 1e-3), 100.0 * share, where="post", label=f"{_label(method)} ({len(gaps)})", **style
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
    """Median time against size, log-log, with the range over cells."""
    fig = _figure()
    axes = fig.subplots()
    for i, method in enumerate(dict.fromkeys(frame["method"])):
        mine = frame[(frame["method"] == method) & frame["objective"].notna()].groupby("x")["seconds"]
        if len(mine) == 0:
            continue
        middle, low, high = mine.median(), mine.min(), mine.max()
        axes.errorbar(
            middle.index, middle, yerr=[middle - low, high - middle], capsize=2, label=_label(method), **_style(i)
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("size $K M$: devices times sub-carriers")
    axes.set_ylabel("time to the answer [s]; bars from least to most")
    axes.grid(color="0.92", which="both")
    axes.legend(fontsize=8, frameon=False)
    return fig


def draw_bench(frame: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write the figures that fit a frame: gaps, and a sweep or times where there is an axis."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if frame["excess_gap"].notna().any():
        figures["gaps"] = plot_gaps(frame)
    if frame["x"].notna().all():
        size = frame["x_label"].iloc[0] == "K M"
        figures["times" if size else "sweep"] = plot_times(frame) if size else plot_sweep(frame)
    paths = []
    for kind, figure in figures.items():
        paths.append(folder / f"{name}-{kind}.png")
        figure.savefig(paths[-1])
    return paths
