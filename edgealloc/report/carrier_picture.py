"""Who owns which sub-carrier, over the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.report.canvas import MAX_NAMED, heading, new_figure, short_name
from edgealloc.report.style import PALETTE
from edgealloc.report.tables import allocated
from edgealloc.units import linear_to_db

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_subcarriers"]


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
    fig = new_figure(float(np.clip(3.5 + carriers / 9, 6.0, 14.0)), float(np.clip(2.4 + devices / 4, 3.2, 10.0)))
    axes = fig.subplots()
    fig.suptitle(heading(result), fontsize=11)
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
        axes.set_yticks(range(rows), [*labels, f"nobody ({len(free)})"][:rows], fontsize=8)
    else:
        axes.set_ylabel("device" + (f"; last row: nobody ({len(free)})" if len(free) else ""))
    axes.set_xlabel(f"sub-carrier ({instance.bandwidth_hz / carriers / 1e3:.4g} kHz each)")
    axes.set_xlim(-0.5, carriers - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    fig.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return fig
