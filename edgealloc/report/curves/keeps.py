"""Who kept how much of the adapter, round after round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgealloc.errors import needs
from edgealloc.report.canvas import MAX_NAMED, axes_for, short_name
from edgealloc.report.style import Size, font_pt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_keeps"]


class Planned(Protocol):
    """A plan of a round, as far as the picture asks; :class:`edgealloc.rounds.Plan` is one."""

    @property
    def round_number(self) -> int:
        """The round."""

    @property
    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings by device id, with ``selected`` and, for those that take part, ``keep``."""


def plot_keeps(plans: Sequence[Planned], *, ax: Axes | None = None, size: Size = "screen") -> Figure:
    """Keep rates as colours, a row a device and a column a round; white where a device took no part.

    Parameters
    ----------
    plans
        Plans of rounds, in any order; of two of one round the later counts, as after planning a round anew.
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
        For an unknown size.
    MissingPackageError
        Without matplotlib.
    """
    by_round = {plan.round_number: plan.devices for plan in plans}
    names = list(dict.fromkeys(name for plan in plans for name in plan.devices))
    first, last = min(by_round, default=0), max(by_round, default=0)
    keep = np.full((max(len(names), 1), last - first + 1), np.nan)
    for number, devices in by_round.items():
        for row, name in enumerate(names):
            own = devices.get(name, {})
            if own.get("selected"):
                keep[row, number - first] = own["keep"]
    needs("matplotlib", "plot", "drawing a figure")
    from matplotlib.ticker import MaxNLocator

    figure, axes = axes_for(ax, size, height=float(np.clip(0.02 * len(names) + 0.3, 0.4, 1.2)))
    axes.grid(visible=False)
    image = axes.imshow(
        keep,
        aspect="auto",
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        extent=(first - 0.5, last + 0.5, len(keep) - 0.5, -0.5),
    )
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("keep rate $s_k$", fontsize=font_pt(size))
    bar.ax.tick_params(labelsize=font_pt(size) - 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round")
    if 0 < len(names) <= MAX_NAMED:
        axes.set_yticks(range(len(names)), [short_name(name) for name in names], fontsize=font_pt(size) - 1.5)
    else:
        axes.set_ylabel(f"{len(names)} devices")
    return figure
