"""The picture of a simulation: what scarcity costs round by round, and how fast the batteries empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.errors import needs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["plot_simulation"]

# Okabe-Ito, and a line style each, so that curves can be told apart without colour.
_STYLES = (
    ("#0072B2", "-"),
    ("#E69F00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#56B4E9", (0, (5, 1))),
    ("#D55E00", (0, (1, 1))),
)
_WINDOW = 10  # rounds of the moving average


def plot_simulation(frame: pd.DataFrame, title: str = "") -> Figure:
    """Excess of the bound over its free minimum (moving average), and the share of the battery that is spent.

    Parameters
    ----------
    frame
        From :func:`edgealloc.rounds.simulation.simulate`.
    title
        Heading.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    """
    needs("matplotlib", "plot", "drawing a figure")
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.0, 6.0), dpi=120, layout="constrained")
    top, bottom = fig.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    several = frame["method"].nunique() > 1
    for i, ((policy, method), rows) in enumerate(frame.groupby(["policy", "method"], sort=False)):
        colour, style = _STYLES[i % len(_STYLES)]
        name = f"{policy}, {method}" if several else str(policy)
        label = f"{name}: mean {rows['excess'].mean():.4g}"
        smooth = rows["excess"].rolling(_WINDOW, min_periods=1).mean()
        top.plot(rows["round"], smooth, color=colour, linestyle=style, linewidth=1.6, label=label)
        bottom.plot(rows["round"], rows["most_used"], color=colour, linestyle=style, linewidth=1.6)
    top.set_ylabel(f"$G - G_{{free}}$, mean of {_WINDOW} rounds")
    top.set_ylim(bottom=0.0)
    top.legend(fontsize=8)
    top.grid(alpha=0.3)
    bottom.axhline(1.0, color="black", linewidth=1.0)
    bottom.set_ylabel("horizon budget spent\n(hardest-working device)")
    bottom.set_xlabel("round")
    bottom.set_ylim(0.0, 1.05)
    bottom.grid(alpha=0.3)
    fig.suptitle(title, fontsize=11)
    return fig
