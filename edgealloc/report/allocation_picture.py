"""Pictures of an allocation: who got what and which budget binds, the cell, the sub-carrier map.

Each function returns a :class:`matplotlib.figure.Figure` of its own (no pyplot, no global state); notebooks
show it, ``figure.savefig(path)`` writes it. Colours are from the Okabe-Ito palette and the cividis and viridis
maps, which people with any colour vision can tell apart. Needs matplotlib (extra ``plot``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.formulation.listing import bandwidth_per_device_hz
from edgealloc.formulation.result import Result
from edgealloc.report.canvas import MAX_NAMED, canvas_for, entitle, figure_of, given_axes, heading, short_name
from edgealloc.report.style import PALETTE, Size, font_pt
from edgealloc.report.tables import allocated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_allocation"]

# What limits a device, told by its two budgets: (words, colour).
_LIMITS = (
    ("deadline and energy", PALETTE["blue"]),
    ("deadline only", PALETTE["sky"]),
    ("energy only", PALETTE["orange"]),
    ("neither", PALETTE["grey"]),
)


def plot_allocation(result: Result, *, ax: Sequence[Axes] | None = None, size: Size = "screen") -> Figure:
    """Keep rate, spectrum and use of the four budgets, device by device.

    Up to 40 devices stand in the order of the instance; more are grouped by the budgets that limit them and
    sorted by keep rate within a group.

    Parameters
    ----------
    result
        With an allocation.
    ax
        Three axes to draw on, one above the other; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InputError
        For an unknown size, and axes that are not three.
    MissingPackageError
        Without matplotlib.
    StatusError
        When the result carries no allocation.
    """
    allocation, use = allocated(result)
    instance = result.problem.instance
    count = instance.num_devices
    grouped = count > MAX_NAMED
    parts: Any = ax
    if parts is None:
        fig = canvas_for(size, 9.0 if count > 12 else 7.0, 7.4)
        parts = fig.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2.2, 1.8]})
    top, middle, bottom = given_axes(parts, 3, size)
    fig = figure_of(top)
    entitle(fig, heading(result), ax, size)
    points = font_pt(size) - 1.0

    late = np.array(["latency_s" in names for names in use.binding])
    hot = np.array(["energy_j" in names for names in use.binding])
    limit = np.where(late, np.where(hot, 0, 1), np.where(hot, 2, 3))
    limit = np.where(allocation.selected, limit, len(_LIMITS))
    order = np.lexsort((allocation.keep, limit)) if grouped else np.arange(count)
    band_khz = bandwidth_per_device_hz(result.problem, allocation) / 1e3
    position = np.arange(count)
    for code, (words, colour) in enumerate(_LIMITS):
        mine = limit[order] == code
        if mine.any():
            label = f"{words} ({int(mine.sum())})"
            for axes, height in ((top, allocation.keep), (middle, band_khz)):
                if grouped:  # a group is one run of devices, drawn as one outline
                    edges = np.append(position[mine], position[mine][-1] + 1) - 0.5
                    axes.stairs(height[order][mine], edges, fill=True, color=colour, label=label)
                else:
                    axes.bar(position[mine], height[mine], 0.8, color=colour, label=label)
    absent = position[~allocation.selected[order]]
    if len(absent):
        label = f"left out ({len(absent)})"
        top.scatter(absent, np.full(len(absent), 0.02), marker="x", s=20, color="0.3", label=label)
    # how much the bound would keep if nothing were scarce: the distance is what scarcity takes
    ideal = result.problem.free[1][order]
    style: dict[str, Any] = (
        {"linestyle": ":", "linewidth": 1} if grouped else {"linestyle": "", "marker": "_", "markersize": 8}
    )
    top.plot(position, ideal, color="black", label="unlimited", **style)
    top.set_ylabel("keep rate $s_k = 1 - \\gamma_k$")
    top.set_ylim(0, 1.02)
    top.legend(
        title="device limited by",
        fontsize=points,
        title_fontsize=points,
        columnspacing=1.2,
        ncols=2 if size == "column" else 6,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        frameon=False,
        alignment="left",
    )
    middle.set_ylabel("spectrum [kHz]")
    total_khz = instance.bandwidth_hz / 1e3

    def to_percent(khz: Any) -> Any:
        return 100 * khz / total_khz

    def to_khz(percent: Any) -> Any:
        return percent * total_khz / 100

    share = middle.secondary_yaxis("right", functions=(to_percent, to_khz))
    share.set_ylabel("share of the band [%]", fontsize=points + 1.0)
    share.tick_params(labelsize=points)
    for axes in (top, middle):
        axes.grid(visible=False, axis="x")
    bottom.grid(visible=False)

    rows = {
        "deadline": (use.latency_s / instance.latency_s, "latency_s"),
        "energy": (use.energy_j / instance.energy_j, "energy_j"),
        "power": (use.power_w / instance.power_max_w, "power_max_w"),
        "processor": (allocation.freq_hz / instance.freq_max_hz, "freq_max_hz"),
    }
    used = 100 * np.stack([np.where(allocation.selected, part, np.nan) for part, _ in rows.values()])
    image = bottom.imshow(used[:, order], aspect="auto", cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    bottom.set_yticks(range(len(rows)), list(rows))
    if grouped:
        bottom.set_xlabel(f"{count} devices, grouped by what limits them, then by keep rate")
    else:
        fields = [name for _, name in rows.values()]
        spots = [(i, r) for i, k in enumerate(order) for r, f in enumerate(fields) if f in use.binding[k]]
        if spots:
            across, down = zip(*spots, strict=True)
            bottom.scatter(across, down, s=10, color="black")
            bottom.set_title("dot: no room left in this budget", fontsize=points, loc="left", pad=3)
        names = [short_name(name) for name in instance.device_names]
        bottom.set_xticks(position, names, rotation=90 if count > 6 or size == "column" else 0, fontsize=points)
    for axes in (top, middle, bottom):
        axes.set_xlim(-0.5, count - 0.5)
    bar = fig.colorbar(image, ax=bottom, location="bottom", aspect=60, pad=0.05, shrink=0.6)
    bar.set_label("budget used [%]", fontsize=points)
    bar.ax.tick_params(labelsize=points)
    return fig
