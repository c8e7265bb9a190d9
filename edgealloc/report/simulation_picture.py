"""The picture of a simulation: what scarcity costs round by round, and how fast the batteries empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgealloc.errors import Fault, InputError
from edgealloc.report.canvas import canvas_for, caption, entitle, figure_of, given_axes
from edgealloc.report.style import Size, font_pt, looks_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_simulation"]

_WINDOW = 10  # rounds of the moving average


def plot_simulation(
    frame: pd.DataFrame, title: str = "", *, ax: Sequence[Axes] | None = None, size: Size = "screen"
) -> Figure:
    """Excess of the bound over its free minimum (moving average), and the share of the battery that is spent.

    Parameters
    ----------
    frame
        From :func:`edgealloc.rounds.simulation.simulate`.
    title
        Heading of a new figure on the screen.
    ax
        Two axes to draw on, one above the other; None for a new figure.
    size
        ``screen``, ``column`` or ``page``.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    InputError
        For a frame without rows, an unknown size, and axes that are not two.
    MissingPackageError
        Without matplotlib.
    """
    if frame.empty:
        raise InputError("simulation", [Fault("frame", "rows", "none", "at least one")])
    parts: Any = ax
    if parts is None:
        fig = canvas_for(size, 8.0, 6.0)
        parts = fig.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    top, bottom = given_axes(parts, 2, size)
    fig = figure_of(top)
    several = frame["method"].nunique() > 1
    policies, methods = (looks_of(dict.fromkeys(frame[key])) for key in ("policy", "method"))
    for key, rows in frame.groupby(["policy", "method"], sort=False):
        policy, method = map(str, key)
        look = policies[policy] | {"marker": "", "linewidth": 1.6}
        if several:  # the policy's colour and dash, the method's marker
            marks = {name: value for name, value in methods[method].items() if name.startswith("marker")}
            look |= marks | {"markevery": max(len(rows) // 8, 1)}
        name = f"{policy}, {method}" if several else policy
        label = f"{caption(name)}: mean {rows['excess'].mean():.4g}"
        smooth = rows["excess"].rolling(_WINDOW, min_periods=1).mean()
        top.plot(rows["round"], smooth, label=label, **look)
        bottom.plot(rows["round"], rows["most_used"], **look)
    top.set_ylabel(f"$G - G_{{free}}$, mean of {_WINDOW} rounds")
    top.set_ylim(bottom=0.0)
    top.legend(fontsize=font_pt(size) - 1.0)
    bottom.axhline(1.0, color="black", linewidth=1.0)
    bottom.set_ylabel("horizon budget spent\n(hardest-working device)")
    bottom.set_xlabel("round")
    bottom.set_ylim(0.0, 1.05)
    entitle(fig, caption(title), ax, size)
    return fig
