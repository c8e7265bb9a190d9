"""Pictures of an allocation: who got what and which budget binds, the cell, the sub-carrier map.

Each function returns a :class:`matplotlib.figure.Figure` of its own (no pyplot, no global state); notebooks
show it, ``figure.savefig(path)`` writes it. Colours are from the Okabe-Ito palette and the cividis and viridis
maps, which people with any colour vision can tell apart. Needs matplotlib (extra ``plot``).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import Fault, InputError, MissingPackageError
from edgealloc.formulation.result import Result
from edgealloc.report.tables import allocated, bandwidth_per_device_hz
from edgealloc.units import FloatArray, linear_to_db

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "plot_allocation", "plot_cell", "plot_subcarriers"]

MAX_NAMED = 40  # devices that still get a bar and a name of their own
# What limits a device, told by its two budgets: (words, colour).
_LIMITS = (
    ("deadline and energy", "#0072B2"),
    ("deadline only", "#56B4E9"),
    ("energy only", "#E69F00"),
    ("neither", "#999999"),
)


def _figure(width: float, height: float) -> Figure:
    if find_spec("matplotlib") is None:
        raise MissingPackageError("matplotlib", "plot", "drawing a figure")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def _title(result: Result) -> str:
    gap = f", proven within {result.rel_gap:.1g}" if np.isfinite(result.rel_gap) else ", no lower bound"
    return f"{result.problem.instance.name}: bound {result.objective:.6g} by {result.method}{gap}"


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def plot_allocation(result: Result) -> Figure:
    """Keep rate, spectrum and use of the four budgets, device by device.

    Up to 40 devices stand in the order of the instance; more are grouped by the budgets that limit them and
    sorted by keep rate within a group.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    StatusError
        When the result carries no allocation.
    """
    allocation, use = allocated(result)
    instance = result.problem.instance
    count = instance.num_devices
    grouped = count > MAX_NAMED
    fig = _figure(9.0 if count > 12 else 7.0, 7.4)
    top, middle, bottom = fig.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2.2, 1.8]})
    fig.suptitle(_title(result), fontsize=11)

    late = np.array(["latency_s" in names for names in use.binding])
    hot = np.array(["energy_j" in names for names in use.binding])
    limit = np.where(late, np.where(hot, 0, 1), np.where(hot, 2, 3))
    limit = np.where(allocation.selected, limit, len(_LIMITS))
    order = np.lexsort((allocation.keep, limit)) if grouped else np.arange(count)
    band_khz = bandwidth_per_device_hz(result, allocation) / 1e3
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
        fontsize=8,
        title_fontsize=8,
        columnspacing=1.2,
        ncols=6,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        frameon=False,
        alignment="left",
    )
    middle.set_ylabel("spectrum [kHz]")
    total_khz = instance.bandwidth_hz / 1e3
    share = middle.secondary_yaxis(
        "right", functions=(lambda khz: 100 * khz / total_khz, lambda percent: percent * total_khz / 100)
    )
    share.set_ylabel("share of the band [%]")
    for axes in (top, middle):
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)

    rows = {
        "deadline": (use.latency_s / instance.latency_s, "latency_s"),
        "energy": (use.energy_j / instance.energy_j, "energy_j"),
        "power": (use.power_w / instance.power_max_w, "power_max_w"),
        "processor": (allocation.freq_hz / instance.freq_max_hz, "freq_max_hz"),
    }
    used = 100 * np.stack([np.where(allocation.selected, share_used, np.nan) for share_used, _ in rows.values()])
    image = bottom.imshow(used[:, order], aspect="auto", cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    bottom.set_yticks(range(len(rows)), list(rows))
    if grouped:
        bottom.set_xlabel(f"{count} devices, grouped by what limits them, then by keep rate")
    else:
        fields = [name for _, name in rows.values()]
        spots = [(i, r) for i, k in enumerate(order) for r, f in enumerate(fields) if f in use.binding[k]]
        if spots:
            bottom.scatter(*zip(*spots, strict=True), s=10, color="black")
            bottom.set_title("dot: no room left in this budget", fontsize=8, loc="left", pad=3)
        names = [_short(name) for name in instance.device_names]
        bottom.set_xticks(position, names, rotation=90 if count > 6 else 0, fontsize=8)
    bottom.set_xlim(-0.5, count - 0.5)
    fig.colorbar(image, ax=bottom, label="budget used [%]", location="bottom", aspect=60, pad=0.05, shrink=0.6)
    return fig


def plot_cell(result: Result, position_m: FloatArray, line_of_sight: NDArray[np.bool_] | None = None) -> Figure:
    """The cell seen from above: keep rate as colour, spectrum as size, line of sight as shape.

    Parameters
    ----------
    result
        A result with an allocation.
    position_m
        Positions of the devices in m, the base station at (0, 0). Shape [K, 2].
    line_of_sight
        Which devices see the base station. Shape [K]; None when not known.

    Raises
    ------
    InputError
        When the positions do not belong to these devices.
    MissingPackageError, StatusError
        Without matplotlib; when the result carries no allocation.
    """
    allocation, _ = allocated(result)
    instance = result.problem.instance
    count = instance.num_devices
    place = np.asarray(position_m, dtype=np.float64)
    sight = np.ones(count, dtype=bool) if line_of_sight is None else np.asarray(line_of_sight, dtype=bool)
    if place.shape != (count, 2) or sight.shape != (count,):
        got = f"shapes {place.shape} and {sight.shape}"
        raise InputError(
            "cell map", [Fault("cell", "position_m, line_of_sight", got, f"({count}, 2), ({count},)")]
        )
    band_khz = bandwidth_per_device_hz(result, allocation) / 1e3
    largest = max(float(band_khz.max()), 1e-12)
    biggest = float(np.clip(6000.0 / count, 30.0, 240.0))  # area in points^2 of the largest share
    area = np.maximum(biggest * band_khz / largest, 4.0)

    edge = 1.15 * max(float(np.abs(place).max()), 1.0)
    fig = _figure(7.8, 7.0)
    axes = fig.subplots()
    fig.suptitle(_title(result), fontsize=11)
    on = allocation.selected
    low, high = (float(f(allocation.keep[on])) for f in (np.min, np.max)) if on.any() else (0.0, 1.0)
    norm: dict[str, Any] = {"vmin": low, "vmax": high if high > low else low + 1e-3, "cmap": "viridis"}
    dots: Any = None
    known = line_of_sight is not None
    for seen, marker, words in ((True, "o", "line of sight"), (False, "s", "no line of sight")):
        mine = np.flatnonzero(on & (sight == seen))
        mine = mine[np.argsort(-area[mine], kind="stable")]  # small dots on top of large ones
        if len(mine):
            dots = axes.scatter(
                place[mine, 0],
                place[mine, 1],
                s=area[mine],
                c=allocation.keep[mine],
                marker=marker,
                edgecolors="0.2",
                linewidths=0.6,
                zorder=3,
                **norm,
            )
            label = f"{words} ({len(mine)})" if known else f"device ({len(mine)})"
            axes.scatter([], [], s=50, marker=marker, facecolors="none", edgecolors="0.2", label=label)
    if not on.all():
        axes.scatter(
            place[~on, 0], place[~on, 1], s=30, marker="x", color="0.4", label=f"left out ({int((~on).sum())})"
        )
    axes.scatter([0], [0], s=160, marker="^", color="#D55E00", edgecolors="black", zorder=4, label="base station")
    for step in (1.0, 0.3):
        size = max(biggest * step, 4.0)
        axes.scatter([], [], s=size, color="0.8", edgecolors="0.2", label=f"{step * largest:.3g} kHz")
    if count <= MAX_NAMED:
        _label_devices(axes, place, edge, [_short(name) for name in instance.device_names], np.sqrt(area) / 2)
    if dots is not None:
        fig.colorbar(dots, ax=axes, label="keep rate $s_k$", shrink=0.85)
    axes.set(aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge))
    axes.set_xlabel("east of the base station [m]")
    axes.set_ylabel("north of the base station [m]")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    fig.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, labelspacing=1.0)
    return fig


_Box = tuple[float, float, float, float]  # centre x, centre y, half width, half height, in points


def _crowding(box: _Box, taken: list[_Box], frame_pt: float) -> float:
    """Area of a box that is taken already, plus what sticks out of the frame."""
    x, y, w, h = box
    outside = max(0.0, abs(x) + w - frame_pt) * 2 * h + max(0.0, abs(y) + h - frame_pt) * 2 * w
    overlap = (
        (min(x + w, u + p) - max(x - w, u - p), min(y + h, v + q) - max(y - h, v - q)) for u, v, p, q in taken
    )
    return outside + sum(max(0.0, width) * max(0.0, height) for width, height in overlap)


def _label_devices(axes: Axes, place: FloatArray, edge_m: float, names: list[str], radius_pt: FloatArray) -> None:
    """Write each name beside its dot, on the side where dots, names and frame leave most room."""
    frame_pt = 200.0  # half the width of the map; the exact figure is known only once it is drawn
    spot = place * (frame_pt / edge_m)
    taken: list[_Box] = [
        (float(x), float(y), float(r), float(r)) for (x, y), r in zip(spot, radius_pt, strict=True)
    ]
    for k, name in enumerate(names):
        w, h, reach = 2.1 * len(name), 3.5, float(radius_pt[k]) + 2.0
        boxes = {
            (dx, dy): (float(spot[k, 0]) + dx * (reach + w), float(spot[k, 1]) + dy * (reach + h), w, h)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
        }
        crowds = {side: _crowding(box, taken, frame_pt) for side, box in boxes.items()}
        dx, dy = side = min(crowds, key=crowds.__getitem__)
        taken.append(boxes[side])
        axes.annotate(
            name,
            place[k],
            xytext=(dx * reach, dy * reach),
            textcoords="offset points",
            ha=("right", "center", "left")[dx + 1],
            va=("top", "center", "bottom")[dy + 1],
            fontsize=7,
            color="0.25",
            zorder=5,
        )


def plot_subcarriers(result: Result) -> Figure:
    """OFDMA: which device owns which sub-carrier, over the channel it sees; dot size is transmit power.

    Raises
    ------
    InputError
        When the instance is not OFDMA.
    MissingPackageError, StatusError
        Without matplotlib; when the result carries no allocation.
    """
    allocation, _ = allocated(result)
    instance = result.problem.instance
    if allocation.owner is None:
        fault = Fault("instance", "access", instance.access, "ofdma")
        raise InputError("sub-carrier map", [fault])
    devices, carriers = instance.gain.shape
    fig = _figure(float(np.clip(3.5 + carriers / 9, 6.0, 14.0)), float(np.clip(2.4 + devices / 4, 3.2, 10.0)))
    axes = fig.subplots()
    fig.suptitle(_title(result), fontsize=11)
    floor = max(float(instance.gain[instance.gain > 0].min(initial=1.0)), 1e-30)
    gain_db = linear_to_db(np.maximum(instance.gain, floor))
    # each row relative to its own mean: a device chooses among its own sub-carriers
    relative = gain_db - linear_to_db(np.maximum(instance.gain.mean(axis=1, keepdims=True), floor))
    image = axes.imshow(
        relative, aspect="auto", cmap="Greys_r", vmin=-20, vmax=10, interpolation="nearest", origin="upper"
    )
    fig.colorbar(image, ax=axes, label="gain over the device's mean [dB]", extend="both")
    owned = np.flatnonzero(allocation.owner >= 0)
    power_mw = allocation.power_w[owned] * 1e3
    if len(owned):
        most = max(float(power_mw.max()), 1e-12)
        biggest = float(np.clip(9000.0 / carriers, 12.0, 110.0))
        axes.scatter(
            owned,
            allocation.owner[owned],
            s=np.maximum(biggest * power_mw / most, 4.0),
            color="#E69F00",
            edgecolors="black",
            linewidths=0.6,
        )
        for step in (1.0, 0.25):
            axes.scatter(
                [],
                [],
                s=max(biggest * step, 4.0),
                color="#E69F00",
                edgecolors="black",
                linewidths=0.6,
                label=f"assigned, {step * most:.3g} mW",
            )
    # one more row at the foot for the sub-carriers that nobody needs
    free = np.flatnonzero(allocation.owner < 0)
    rows = devices + bool(len(free))
    axes.scatter(free, np.full(len(free), devices), marker="|", s=40, color="#D55E00")
    if devices <= MAX_NAMED:
        labels = [
            f"{_short(name)}  " + (f"s={keep:.2f}" if on else "left out")
            for name, keep, on in zip(instance.device_names, allocation.keep, allocation.selected, strict=True)
        ]
        axes.set_yticks(range(rows), [*labels, f"nobody ({len(free)})"][:rows], fontsize=8)
    else:
        axes.set_ylabel("device" + (f"; last row: nobody ({len(free)})" if len(free) else ""))
    axes.set_xlabel(f"sub-carrier ({instance.bandwidth_hz / carriers / 1e3:.4g} kHz each)")
    axes.set_xlim(-0.5, carriers - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return fig


def draw(
    result: Result,
    folder: str | Path,
    position_m: FloatArray | None = None,
    line_of_sight: NDArray[np.bool_] | None = None,
) -> list[Path]:
    """Write every picture that fits a result into a folder, as PNG files; returns their paths.

    The map of the cell needs positions, the sub-carrier map an OFDMA instance. Raises as the functions above.
    """
    folder = Path(folder)
    figures = {"allocation": plot_allocation(result)}
    if position_m is not None:
        figures["cell"] = plot_cell(result, position_m, line_of_sight)
    if result.problem.instance.access == "ofdma":
        figures["subcarriers"] = plot_subcarriers(result)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(paths[name])
    return list(paths.values())
