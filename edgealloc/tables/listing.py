"""A table of words and numbers, made once and shown anywhere: in a terminal, a notebook, a paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape

from edgealloc.errors import printable

__all__ = ["Column", "Listing", "latex_text"]

_LATEX = {c: f"\\{c}" for c in "%_&#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_BETWEEN = 2  # spaces after a column of a terminal
_LONGEST = 24  # letters of a word that a terminal shows in one line where it is narrow


def latex_text(text: object) -> str:
    """Text as LaTeX shows it, letter by letter."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(text))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a listing.

    Parameters
    ----------
    head, unit
        Its heading, and the unit of its numbers; empty for none.
    number
        Whether it holds numbers: these stand to the right and are never cut or folded. Words are not cut either;
        very long ones, such as names of others, are folded where there is no room.
    spare
        Above 0: may be left out where there is no room, the greatest first.
    fold
        Words that may be folded, at their spaces.
    """

    head: str
    unit: str = ""
    number: bool = True
    spare: int = 0
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows of text under columns.

    Parameters
    ----------
    title
        Above the table; empty for none.
    columns
        What the rows hold.
    rows
        A text per column; an empty row stands for rows that are left out.
    note
        Below the table; empty for none.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def widths(self) -> list[int]:
        """Letters that each column needs at least."""
        found = []
        for i, column in enumerate(self.columns):
            cells = [printable(row[i]) for row in self.rows if row]
            if column.fold:
                cells = [word for cell in cells for word in cell.split()]
            widths = [len(cell) if column.number else min(len(cell), _LONGEST) for cell in cells]
            found.append(max(len(column.head), len(column.unit), *widths, 0))
        return found

    @property
    def width(self) -> int:
        """Letters of a row at least."""
        return sum(self.widths()) + _BETWEEN * len(self.columns)

    def fitted(self, width: int) -> Listing:
        """Without as many of the columns that can be spared as it takes to be no wider; the note names them."""
        fits, gone = self, list[str]()
        while fits.width > width and any(column.spare for column in fits.columns):
            at = max(range(len(fits.columns)), key=lambda i: fits.columns[i].spare)
            gone.append(fits.columns[at].head)
            rows = tuple(row[:at] + row[at + 1 :] for row in fits.rows)
            fits = replace(fits, columns=fits.columns[:at] + fits.columns[at + 1 :], rows=rows)
        if not gone:
            return self
        told = f"no room for: {', '.join(gone)}"
        return replace(fits, note=f"{self.note}\n{told}".strip())

    def html(self) -> str:
        """As HTML, for notebooks."""
        heads = "".join(
            f'<th style="text-align:{_side(c)}">{_html(c.head)}{f"<br>{_html(c.unit)}" if c.unit else ""}</th>'
            for c in self.columns
        )
        lines = [f"<caption>{_html(self.title)}</caption>"] if self.title else []
        lines.append(f"<thead><tr>{heads}</tr></thead><tbody>")
        for row in self.rows:
            cells = zip(self.columns, row or ["..."] + [""] * (len(self.columns) - 1), strict=True)
            inside = "".join(f'<td style="text-align:{_side(c)}">{_html(text)}</td>' for c, text in cells)
            lines.append(f"<tr>{inside}</tr>")
        note = f"<p>{_html(self.note)}</p>" if self.note else ""
        return "<table>" + "\n".join(lines) + "</tbody></table>" + note

    def latex(self) -> str:
        """As a ``tabular`` of LaTeX with rules of the package ``booktabs``; the title is a comment above it."""
        form = "".join("r" if column.number else "l" for column in self.columns)
        lines = [f"% {latex_text(self.title)}"] if self.title else []
        lines += [rf"\begin{{tabular}}{{{form}}}", r"\toprule", _latex_row(c.head for c in self.columns)]
        if any(column.unit for column in self.columns):
            lines.append(_latex_row(c.unit and f"[{c.unit}]" for c in self.columns))
        lines.append(r"\midrule")
        lines += [_latex_row(row) if row else r"\multicolumn{1}{l}{\dots} \\" for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _side(column: Column) -> str:
    return "right" if column.number else "left"


def _html(text: str) -> str:
    return escape(printable(text, lines=True)).replace("\n", "<br>")


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"
