"""The map of a cell: who is where, and who was given how much spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.formulation.listing import bandwidth_per_device_hz
from edgealloc.formulation.result import Result
from edgealloc.report.canvas import (
    MAX_NAMED,
    canvas_for,
    dress,
    entitle,
    figure_of,
    heading,
    legend_for,
    short_name,
)
from edgealloc.report.style import PALETTE, Size, font_pt
from edgealloc.report.tables import allocated
from edgealloc.units import BoolArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_cell"]


def plot_cell(
    result: Result,
    position_m: FloatArray,
    line_of_sight: BoolArray | None = None,
    *,
    ax: Axes | None = None,
    size: Size = "screen",
) -> Figure:
    """The cell seen from above: keep rate as colour, spectrum as size, line of sight as shape.

    Parameters
    ----------
    result
        A result with an allocation.
    position_m
        Positions of the devices in m, the base station at (0, 0). Shape [K, 2].
    line_of_sight
        Which devices see the base station. Shape [K]; None when not known.
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
        When the positions do not belong to these devices, for an unknown size, and for axes that are none.
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
    band_khz = bandwidth_per_device_hz(result.problem, allocation) / 1e3
    largest = max(float(band_khz.max()), 1e-12)
    biggest = float(np.clip(6000.0 / count, 30.0, 240.0))  # area in points^2 of the largest share
    area = np.maximum(biggest * band_khz / largest, 4.0)

    edge = 1.15 * max(float(np.abs(place).max()), 1.0)
    high = 7.0 if size == "screen" else 6.0  # without a heading
    axes = canvas_for(size, 7.8, high).subplots() if ax is None else ax
    fig = figure_of(axes)
    dress(axes, size)
    entitle(fig, heading(result), None if ax is None else [ax], size)
    points = font_pt(size) - 1.0
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
    axes.scatter(
        [0], [0], s=160, marker="^", color=PALETTE["red"], edgecolors="black", zorder=4, label="base station"
    )
    for step in (1.0, 0.3):
        dot = max(biggest * step, 4.0)
        axes.scatter([], [], s=dot, color="0.8", edgecolors="0.2", label=f"{step * largest:.3g} kHz")
    if count <= MAX_NAMED:
        _label_devices(axes, place, edge, [short_name(name) for name in instance.device_names], np.sqrt(area) / 2)
    if dots is not None:
        bar = fig.colorbar(dots, ax=axes, shrink=0.85)
        bar.set_label("keep rate $s_k$", fontsize=points)
        bar.ax.tick_params(labelsize=points)
    axes.set(aspect="equal", xlim=(-edge, edge), ylim=(-edge, edge))
    axes.set_xlabel("east of the base station [m]")
    axes.set_ylabel("north of the base station [m]")
    legend_for(fig, axes, ax, size, labelspacing=1.0)
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
