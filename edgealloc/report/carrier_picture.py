"""Who owns which sub-carrier, over the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgealloc.errors import Fault, InputError
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
from edgealloc.units import linear_to_db

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_subcarriers"]


def plot_subcarriers(result: Result, *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """OFDMA: which device owns which sub-carrier, over the channel it sees; dot size is transmit power.

    Parameters
    ----------
    result
        With an allocation.
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
        When the instance is not OFDMA, for an unknown size, and for axes that are none.
    MissingPackageError, StatusError
        Without matplotlib; when the result carries no allocation.
    """
    allocation, _ = allocated(result)
    instance = result.problem.instance
    if allocation.owner is None:
        fault = Fault("instance", "access", instance.access, "ofdma")
        raise InputError("sub-carrier map", [fault])
    devices, carriers = instance.gain.shape
    if ax is None:
        width, height = np.clip(3.5 + carriers / 9, 6.0, 14.0), np.clip(2.4 + devices / 4, 3.2, 10.0)
        axes = canvas_for(size, float(width), float(height)).subplots()
    else:
        axes = ax
    fig = figure_of(axes)
    dress(axes, size)
    axes.grid(visible=False)
    entitle(fig, heading(result), None if ax is None else [ax], size)
    points = font_pt(size) - 1.0
    floor = max(float(instance.gain[instance.gain > 0].min(initial=1.0)), 1e-30)
    gain_db = linear_to_db(np.maximum(instance.gain, floor))
    # each row relative to its own mean: a device chooses among its own sub-carriers
    relative = gain_db - linear_to_db(np.maximum(instance.gain.mean(axis=1, keepdims=True), floor))
    image = axes.imshow(
        relative, aspect="auto", cmap="Greys_r", vmin=-20, vmax=10, interpolation="nearest", origin="upper"
    )
    bar = fig.colorbar(image, ax=axes, extend="both")
    bar.set_label("gain over the device's mean [dB]", fontsize=points)
    bar.ax.tick_params(labelsize=points)
    owned = np.flatnonzero(allocation.owner >= 0)
    power_mw = allocation.power_w[owned] * 1e3
    if len(owned):
        most = max(float(power_mw.max()), 1e-12)
        biggest = float(np.clip(9000.0 / carriers, 12.0, 110.0))
        axes.scatter(
            owned,
            allocation.owner[owned],
            s=np.maximum(biggest * power_mw / most, 4.0),
            color=PALETTE["orange"],
            edgecolors="black",
            linewidths=0.6,
        )
        for step in (1.0, 0.25):
            axes.scatter(
                [],
                [],
                s=max(biggest * step, 4.0),
                color=PALETTE["orange"],
                edgecolors="black",
                linewidths=0.6,
                label=f"assigned, {step * most:.3g} mW",
            )
    # one more row at the foot for the sub-carriers that nobody needs
    free = np.flatnonzero(allocation.owner < 0)
    rows = devices + bool(len(free))
    axes.scatter(free, np.full(len(free), devices), marker="|", s=40, color=PALETTE["red"])
    if devices <= MAX_NAMED:
        labels = [
            f"{short_name(name)}  " + (f"s={keep:.2f}" if on else "left out")
            for name, keep, on in zip(instance.device_names, allocation.keep, allocation.selected, strict=True)
        ]
        axes.set_yticks(range(rows), [*labels, f"nobody ({len(free)})"][:rows], fontsize=points)
    else:
        axes.set_ylabel("device" + (f"; last row: nobody ({len(free)})" if len(free) else ""))
    axes.set_xlabel(f"sub-carrier ({instance.bandwidth_hz / carriers / 1e3:.4g} kHz each)")
    axes.set_xlim(-0.5, carriers - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    legend_for(fig, axes, ax, size)
    return fig
