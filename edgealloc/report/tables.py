"""Tables and sentences about a result: what each device got, which budget binds, how good it is proven to be.

Everything here reads a :class:`~edgealloc.formulation.result.Result` and computes nothing new; the pictures are in
:mod:`edgealloc.report.allocation_picture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import printable
from edgealloc.formulation.evaluation import Evaluation
from edgealloc.formulation.result import NOTHING_SCARCE, Result
from edgealloc.tables.listing import Listing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "allocated",
    "markdown_cell",
    "print_listing",
    "proof_text",
    "rich_table",
]


def _shown(text: object) -> str:
    """Text as a cell of a rich table: nothing in it is markup, and nothing steers the terminal."""
    from rich.markup import escape

    return escape(printable(text))


def markdown_cell(text: object) -> str:
    """Text as a cell of a Markdown table."""
    return printable(text).replace("|", r"\|")


def allocated(result: Result) -> tuple[Allocation, Evaluation]:
    """The allocation of a result and what it uses; StatusError with the remedy where there is none."""
    result.raise_for_status()
    assert result.allocation is not None
    return result.allocation, result.problem.evaluate(result.allocation)


def rich_table(listing: Listing) -> Table:
    """A listing as a table of rich, whose numbers are not folded; print it by :func:`print_listing`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = _shown(listing.title) if listing.title else None
    note = _shown(listing.note) if listing.note else None
    table = Table(
        title=title,
        title_justify="left",
        caption=note,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    units = any(column.unit for column in listing.columns)
    for i, (column, width) in enumerate(zip(listing.columns, listing.widths(), strict=True)):
        cells = [row[i] for row in listing.rows if row]
        head = f"{column.head}\n{column.unit}" if units else column.head
        side: Literal["right", "left"] = "right" if column.number else "left"
        if not column.number and (column.fold or max(map(len, map(printable, cells)), default=0) > width):
            table.add_column(
                head, justify=side, overflow="fold", min_width=width, max_width=32 if column.fold else None
            )
        else:
            table.add_column(head, justify=side, no_wrap=True, min_width=width)
    for row in listing.rows:
        if not row:
            table.add_row("...", end_section=True)
            continue
        table.add_row(*map(_shown, row), style="dim" if row[-1] == "left out" else None)
    return table


def print_listing(console: Console, listing: Listing) -> None:
    """Print a listing on a terminal of any width: columns that can be spared give way, numbers are never cut.

    What is wider still is printed as wide as it is, for the terminal to wrap.
    """
    fitted = listing.fitted(console.width)
    table = rich_table(fitted)
    table.width = None if fitted.width <= console.width else fitted.width
    console.print(table, crop=False, no_wrap=True, overflow="ignore", soft_wrap=table.width is not None)


def proof_text(result: Result) -> str:
    """How good the allocation is and how that is known; for a result without one, why there is none."""
    if not result.status.has_allocation:
        reasons = [found.message for found in result.diagnosis] or [result.message or "no message"]
        lines = [f"{result.status.value} ({result.method}):", *(f"  - {line}" for line in reasons)]
        return printable("\n".join(lines), lines=True)
    _, use = allocated(result)
    instance = result.problem.instance
    lines = [
        f"status        {result.status.value} by {result.method} in {result.seconds:.3g} s",
        f"bound G       {result.objective:.10g} = underfitting {use.underfit:.6g} + stability {use.stability:.6g}",
        f"proven >=     {result.lower_bound:.10g}, so no allocation is better by more than "
        f"{max(0.0, result.objective - result.lower_bound):.2g}",
        f"gaps          {result.rel_gap:.2g} of G, {result.excess_gap:.2g} of what scarcity costs (G - unlimited)",
        f"unlimited     {result.free_objective:.10g}, what the bound could reach with no budget at all",
        f"resources     deadline {instance.latency_s:g} s, "
        f"{use.bandwidth_hz / instance.bandwidth_hz:.4%} of the spectrum used",
    ]
    if result.nothing_scarce:
        lines.append(f"              {NOTHING_SCARCE}")
    if not np.isfinite(result.lower_bound):
        lines[2:4] = ["proven        nothing: this method gives no lower bound"]
    if result.message:
        lines.append(f"remark        {result.message}")
    return printable("\n".join(lines), lines=True)
