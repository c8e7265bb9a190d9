"""Results of several methods on one instance, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.data.outcome import excess_gap, relative_gap
from edgealloc.errors import EdgeallocError, needs
from edgealloc.formulation.result import Result
from edgealloc.tables.listing import Column, Listing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "comparison_listing"]

_COLUMNS = (
    Column("method", number=False),
    Column("status", number=False, fold=True),
    Column("bound G"),
    Column("proven >="),
    Column("rel_gap", spare=1),
    Column("excess_gap"),
    Column("nodes", spare=2),
    Column("seconds"),
)


class Comparison(list[Result]):
    """A list of results, one per method, that shows itself as a table.

    Parameters
    ----------
    results
        In the order of the methods.
    refused
        Methods that did not run, each with the error that says why.
    """

    def __init__(
        self, results: Iterable[Result] = (), refused: tuple[tuple[str, EdgeallocError], ...] = ()
    ) -> None:
        super().__init__(results)
        self.refused = refused

    def __repr__(self) -> str:
        if not self:
            return "Comparison of no methods"
        lines = [f"Comparison on {self[0].problem.instance.name!r}:"]
        for result in self:
            value = f"{result.objective:.9g}" if result.status.has_allocation else "no allocation"
            lines.append(f"  {result.method}: {result.status.value}, {value}, {result.seconds:.3g} s")
        lines += [f"  {name}: refused: {why}" for name, why in self.refused]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return comparison_listing(self).html()

    def to_latex(self) -> str:
        """The table of :func:`comparison_listing` as a ``tabular`` of LaTeX with rules of ``booktabs``."""
        return comparison_listing(self).latex()

    def to_frame(self) -> pd.DataFrame:
        """One row per method, in the order of the list.

        Columns ``method``, ``status``, ``objective``, ``lower_bound``, ``best_bound`` (the best that any method
        proved), ``rel_gap`` and ``excess_gap`` against that, ``nodes``, ``seconds``; NaN where there is no number.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        needs("pandas", "frame", "a table of results")
        import pandas as pd

        best = best_bound(self)
        rows = [
            {
                "method": r.method,
                "status": r.status.value,
                "objective": r.objective,
                "lower_bound": r.lower_bound,
                "best_bound": best,
                "rel_gap": relative_gap(r.objective, best),
                "excess_gap": excess_gap(r.objective, best, r.free_objective),
                "nodes": r.nodes,
                "seconds": r.seconds,
            }
            for r in self
        ]
        return pd.DataFrame(rows).replace([np.inf, -np.inf], np.nan)


def best_bound(results: Sequence[Result]) -> float:
    """The best lower bound that any of the methods proved, which holds for all of them; -inf without one."""
    return max((r.lower_bound for r in results if np.isfinite(r.lower_bound)), default=-np.inf)


def comparison_listing(results: Sequence[Result]) -> Listing:
    """One row per method, best bound first; methods without an allocation last.

    Gaps are measured against the best lower bound that any of the methods proved.
    """
    best, rows = best_bound(results), []
    for result in sorted(results, key=lambda r: (not r.status.has_allocation, r.objective)):
        lower = f"{result.lower_bound:.9g}" if np.isfinite(result.lower_bound) else "-"
        value, gaps = "-", ["-", "-"]
        if result.status.has_allocation:
            value = f"{result.objective:.9g}"
            if np.isfinite(best):
                relative = relative_gap(result.objective, best)
                gaps = [f"{relative:.2g}", f"{excess_gap(result.objective, best, result.free_objective):.2g}"]
        words = result.status.value.replace("_", " ")  # so that it may be folded
        told = (result.method, words, value, lower, *gaps, str(result.nodes), f"{result.seconds:.3g}")
        rows.append(told)
    title = results[0].problem.instance.name if results else ""
    return Listing(title, _COLUMNS, tuple(rows))
