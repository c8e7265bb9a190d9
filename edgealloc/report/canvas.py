"""What all pictures share: a figure, its title, names that fit, the way to a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import Fault, InputError, needs, printable
from edgealloc.files.disk import write_file
from edgealloc.formulation.result import Result
from edgealloc.report.style import Size, font_pt, width_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Letters that publishers take (TrueType) and editors can change; the same figure gives the same bytes.
_LETTERS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "edgealloc"}
_UNDATED: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
MAX_NAMED = 40  # devices that still get a bar and a name of their own


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    """
    needs("matplotlib", "plot", "drawing a figure")
    return _picture()(figsize=(width, height), dpi=120, layout="constrained")


@cache
def _picture() -> type[Figure]:
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows as it is, without pyplot and without a magic word."""

        def _repr_png_(self) -> bytes:
            buffer = BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Picture


def axes_for(ax: Axes | None, size: Size, height: float = 0.62) -> tuple[Figure, Axes]:
    """The axes that a caller gave, or those of a new figure of a size; dressed with its letters and a faint grid.

    Parameters
    ----------
    ax
        Axes of the caller's own figure; None for a new figure.
    size
        Of a new figure, and of the letters.
    height
        Of a new figure, as a share of its width.

    Returns
    -------
    tuple of Figure and Axes
        Where to draw.

    Raises
    ------
    InputError
        For an unknown size, or axes that are none.
    MissingPackageError
        Without matplotlib.
    """
    width = width_in(size)
    if ax is None:
        ax = new_figure(width, height * width).subplots()
    dress(ax, size)
    return figure_of(ax), ax


def canvas_for(size: Size, width: float, height: float) -> Figure:
    """An empty figure of so many inches on the screen; for a paper as wide as that is, and lower as letters allow.

    Raises
    ------
    InputError
        For an unknown size.
    MissingPackageError
        Without matplotlib.
    """
    own = width if size == "screen" else width_in(size)
    return new_figure(own, height * (own / width) ** 0.5)


def given_axes(ax: Any, count: int, size: Size) -> list[Axes]:
    """The axes that a caller gave for a picture of several parts, in their order and dressed.

    Parameters
    ----------
    ax
        A list or an array of any shape, as ``subplots`` gives it.
    count
        How many there must be.
    size
        Of the letters.

    Returns
    -------
    list of Axes
        So many.

    Raises
    ------
    InputError
        For an unknown size, axes that are none, and too few or too many.
    """
    flat: list[Any] = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(flat) != count:
        raise InputError("options", [Fault("options", "ax", f"{len(flat)} axes", f"{count} axes")])
    for one in flat:
        dress(one, size)
    return flat


def figure_of(ax: Axes) -> Figure:
    """The figure that axes belong to.

    Raises
    ------
    InputError
        For axes that are none, or those of a sub-figure, whose size is not known before it is drawn.
    """
    from matplotlib.axes import Axes as RealAxes
    from matplotlib.figure import Figure as RealFigure

    figure: Any = ax.figure if isinstance(ax, RealAxes) else None
    if not isinstance(figure, RealFigure):
        raise InputError(
            "options", [Fault("options", "ax", f"<{type(ax).__name__}>", "axes of a matplotlib Figure")]
        )
    return figure


def dress(ax: Axes, size: Size) -> None:
    """Letters of a size and a faint grid; what is drawn later is to ask for :func:`font_pt`.

    Raises
    ------
    InputError
        For an unknown size, or axes that are none.
    """
    figure_of(ax)
    points = font_pt(size)
    ax.tick_params(labelsize=points - 1.0, which="both")
    for text in (ax.xaxis.label, ax.yaxis.label, ax.xaxis.get_offset_text(), ax.yaxis.get_offset_text()):
        text.set_fontsize(points)
    ax.title.set_fontsize(points)
    ax.grid(color="0.92", linewidth=0.7)
    ax.set_axisbelow(True)


def entitle(figure: Figure, text: str, axes: Sequence[Axes] | None, size: Size) -> None:
    """A heading for a figure of our own on the screen; in a paper and on axes of others it is theirs to say."""
    if axes is None and size == "screen":
        figure.suptitle(text, fontsize=11)


def legend_for(figure: Figure, axes: Axes, ax: Axes | None, size: Size, **words: Any) -> None:
    """A legend below a figure of our own, or inside axes that a caller gave."""
    words = {"fontsize": font_pt(size) - 1.0, "frameon": False} | words
    if ax is None:
        figure.legend(loc="outside lower center", ncols=2 if size == "column" else 3, **words)
    else:
        axes.legend(**words | {"frameon": True, "framealpha": 0.8})


def heading(result: Result) -> str:
    """One line above a picture: instance, bound, method and gap."""
    name, method = caption(result.problem.instance.name), caption(result.method)
    gap = f", proven within {result.rel_gap:.1g}" if np.isfinite(result.rel_gap) else ", no lower bound"
    return f"{name}: bound {result.objective:.6g} by {method}{gap}"


def short_name(name: str) -> str:
    """A name of at most 14 characters, as a picture takes it (:func:`caption`)."""
    return caption(name if len(name) <= 14 else name[:13] + "…")


def caption(text: object) -> str:
    """Text of others for matplotlib: escapes for what is not printable, and dollars that make no formula."""
    return printable(text).replace("$", r"\$")


def save_figure(figure: Figure, path: str | Path, **options: Any) -> Path:
    """Write a figure; the file appears whole or not at all.

    Parameters
    ----------
    figure
        What to write.
    path
        Where to; its ending says the format, PNG without one.
    **options
        For matplotlib's ``savefig``, such as ``dpi``.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        When matplotlib has no such format, or the file cannot be written.
    """
    form = Path(path).suffix.lstrip(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise InputError(str(path), [Fault("picture", "ending", repr(form), ", ".join(sorted(known)))])
    import matplotlib as mpl

    buffer = BytesIO()
    if form in _UNDATED:
        options.setdefault("metadata", _UNDATED[form])
    with mpl.rc_context(_LETTERS):
        figure.savefig(buffer, format=form, **options)
    return write_file(buffer.getvalue(), path)
