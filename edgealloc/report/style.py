"""How things look in every picture: one colour, dash, marker and label a method; sizes for paper and screen.

A method looks the same in each figure, whatever else is drawn there. Colours are those of Okabe and Ito, which
people with any colour vision can tell apart, but for grey in place of yellow, too faint on white; dash and marker
tell the methods apart in grey, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args
from zlib import crc32

from edgealloc.errors import Fault, InputError

__all__ = [
    "LOOKS",
    "PALETTE",
    "Size",
    "font_pt",
    "label_of",
    "look_of",
    "looks_of",
    "width_in",
]

PALETTE: Mapping[str, str] = MappingProxyType(
    {
        "black": "#000000",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "green": "#009E73",
        "grey": "#7F7F7F",
        "blue": "#0072B2",
        "red": "#D55E00",
        "pink": "#CC79A7",
    }
)

_SOLID, _DASHED, _DOTTED, _MIXED = "-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5))
_LONG = (0, (9, 2))

# Colour, dash and marker by method or energy policy. A family without its own line gives its look to its solvers.
LOOKS: Mapping[str, tuple[str, Any, str]] = MappingProxyType(
    {
        "auto": ("black", _SOLID, "o"),
        "bnb": ("black", _SOLID, "o"),
        "convex": ("blue", _SOLID, "P"),
        "psca": ("orange", _DASHED, "s"),
        "psca+": ("red", _MIXED, "D"),
        "highs": ("green", _DASHED, "^"),
        "scip": ("grey", _DASHED, "v"),
        "cvxpy": ("sky", _DASHED, "X"),
        "pyomo": ("pink", _DASHED, "*"),
        "baseline:no-dropout": ("grey", _DOTTED, "x"),
        "baseline:common": ("sky", _MIXED, "<"),
        "baseline:dropout-0.1": ("pink", _DOTTED, "1"),
        "baseline:dropout-0.3": ("pink", _MIXED, "2"),
        "baseline:dropout-0.5": ("pink", _LONG, "3"),
        "baseline:equal": ("green", _MIXED, ">"),
        "baseline:best-channel": ("blue", _MIXED, "h"),
        "baseline:random": ("grey", _MIXED, "+"),
        "baseline:keep-only": ("green", _DOTTED, "p"),
        "baseline:spectrum-only": ("blue", _DOTTED, "d"),
        "baseline:alternating": ("red", _DOTTED, "8"),
        "equal-split": ("black", _SOLID, "o"),
        "rollover": ("orange", _DASHED, "s"),
        "virtual-queue": ("blue", _MIXED, "D"),
        "clairvoyant": ("green", _DOTTED, "^"),
    }
)
_HOLLOW = ("psca", "psca+")  # these lie on the optimum, and must let it be seen
# For methods of somebody else's: colours of Paul Tol's muted scheme, which none of ours has.
_FREE = tuple(
    (colour, dash, marker)
    for dash, marker in ((_LONG, "H"), (_DASHED, "d"), (_DOTTED, "4"))
    for colour in ("#332288", "#882255", "#999933", "#117733", "#AA4499")
)

_LABELS = {"auto": "proven optimum", "psca": "P-SCA", "psca+": "P-SCA+"}

Size = Literal["screen", "column", "page"]
_SIZES: Mapping[str, tuple[float, float]] = {  # width in inches, size of letters in points
    "screen": (6.4, 9.0),
    "column": (3.5, 7.0),  # one column of a paper of two (IEEE: 3.5 in)
    "page": (7.16, 8.0),  # both (IEEE: 7.16 in)
}


def label_of(method: str) -> str:
    """What tables and charts call a method."""
    family, _, variant = method.partition(":")
    if family == "baseline":
        return variant
    return _LABELS.get(family, family) + (f" ({variant})" if variant else "")


def looks_of(methods: Iterable[str], markers: bool = True) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each method, as matplotlib's ``plot`` takes them.

    Parameters
    ----------
    methods
        Names as of :data:`edgealloc.METHODS`, or energy policies.
    markers
        Whether points get a marker.

    Returns
    -------
    dict
        A style by name. Those of ours look the same everywhere; others too, unless two of one picture would look
        alike: then the one named later moves on.
    """
    taken: set[int] = set()
    looks = {}
    for method in dict.fromkeys(methods):
        look = LOOKS.get(method) or LOOKS.get(method.partition(":")[0])
        if look is None:
            place = crc32(method.encode()) % len(_FREE)
            while place in taken and len(taken) < len(_FREE):
                place = (place + 1) % len(_FREE)
            taken.add(place)
            look = _FREE[place]
        colour, dash, marker = look
        looks[method] = {"color": PALETTE.get(colour, colour), "linestyle": dash, "linewidth": 1.3}
        if markers:
            looks[method] |= {"marker": marker, "markersize": 5.0}
            if method in _HOLLOW:
                looks[method] |= {"markerfacecolor": "none", "markersize": 7.5}
    return looks


def look_of(method: str, markers: bool = True) -> dict[str, Any]:
    """The look of one method; see :func:`looks_of`."""
    return looks_of([method], markers)[method]


def width_in(size: Size) -> float:
    """Width in inches of a figure for the screen, one column of a paper, or its page of two.

    Raises
    ------
    InputError
        For another size.
    """
    return _size(size)[0]


def font_pt(size: Size) -> float:
    """Size in points of the letters of such a figure.

    Raises
    ------
    InputError
        For another size.
    """
    return _size(size)[1]


def _size(size: str) -> tuple[float, float]:
    if size not in _SIZES:
        raise InputError("options", [Fault("options", "size", repr(size), ", ".join(get_args(Size)))])
    return _SIZES[size]
