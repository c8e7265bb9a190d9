"""The errors that edgealloc raises: bad input, missing packages, and results asked to raise.

Limits (time, iterations, infeasibility) never raise; they are a :class:`~edgealloc.formulation.result.Status`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from unicodedata import category

__all__ = [
    "EdgeallocError",
    "Fault",
    "InputError",
    "MissingPackageError",
    "PlausibilityWarning",
    "RefusedError",
    "StatusError",
    "did_you_mean",
    "needs",
    "printable",
    "shown",
    "steers",
]

_STEERING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))

_LONGEST = 200  # characters of a fault's value that are shown; the value itself stays whole
_LONGEST_SHOWN = 80  # characters of a stranger's value that a message shows


def printable(text: object, *, lines: bool = False) -> str:
    r"""Text that can be shown anywhere: what is not printable stands as an escape such as ``\x1b``.

    Control characters would steer the terminal, marks that turn the direction of writing would let a name look
    like another, and half surrogates can be written in no encoding. All that edgealloc prints goes through here.

    Parameters
    ----------
    text
        What to show, as ``str`` says it.
    lines
        Whether line breaks stay: for a text of several lines that we have made.

    Returns
    -------
    str
        The text; the same where all of it is printable (:meth:`str.isprintable`) or a space.
    """
    words = str(text)
    if words.isprintable():
        return words
    kept = "\n" if lines else ""
    return "".join(c if c.isprintable() or c in kept or category(c) == "Zs" else repr(c)[1:-1] for c in words)


def steers(text: str) -> bool:
    """Whether a text holds what no name may: line breaks, control characters, invisible marks, half surrogates.

    The categories Cc, Cf, Cs, Zl and Zp of Unicode, which include whatever turns the direction of writing.
    """
    return not text.isprintable() and any(category(c) in _STEERING for c in text)


class EdgeallocError(Exception):
    """Base class of every error that edgealloc raises on purpose."""


class RefusedError(EdgeallocError):
    """A method does not take the problem; the message says what it takes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an input.

    Parameters
    ----------
    where
        What the fault is in: a device name, or a block of the file such as ``uplink``.
    field
        Name of the field at fault.
    value
        The offending value, as text.
    allowed
        What would have been accepted, as text.
    """

    where: str
    field: str
    value: str
    allowed: str

    def __str__(self) -> str:
        where, field, value = (_cut(printable(text)) for text in (self.where, self.field, self.value))
        return f"{where}: {field} = {value}; allowed: {printable(self.allowed)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class InputError(EdgeallocError, ValueError):
    """An instance, allocation or option is not valid; lists *all* faults, not only the first.

    Parameters
    ----------
    subject
        What has the faults, as the message names it: an instance, a file, ``options``.
    faults
        All of them; the message shows the first ``MAX_SHOWN``.
    """

    MAX_SHOWN = 20

    def __init__(self, subject: str, faults: Iterable[Fault]) -> None:
        self.subject = subject
        self.faults = tuple(faults)
        shown = [f"  - {fault}" for fault in self.faults[: self.MAX_SHOWN]]
        hidden = len(self.faults) - len(shown)
        if hidden > 0:
            shown.append(f"  ... and {hidden} more (see .faults)")
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{printable(subject)} has {count}:", *shown]))


class MissingPackageError(EdgeallocError, ImportError):
    """An optional package is not installed; the message names the extra that brings it.

    Parameters
    ----------
    package
        Name of the package that is missing.
    extra
        Extra of edgealloc that brings it, as in ``pip install 'edgealloc[extra]'``.
    purpose
        What needs it, as the beginning of the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'edgealloc[{extra}]'"
        )


def needs(package: str, extra: str, purpose: str, name: str = "") -> None:
    """Make sure that an optional package is installed, without importing it.

    Parameters
    ----------
    package
        Name under which it is imported.
    extra
        The extra of edgealloc that brings it.
    purpose
        What needs it, as the beginning of the message.
    name
        Name under which it is installed, where that is another.

    Raises
    ------
    MissingPackageError
        Without the package.
    """
    if find_spec(package) is None:
        raise MissingPackageError(name or package, extra, purpose)


class StatusError(EdgeallocError, RuntimeError):
    """Raised by :meth:`Result.raise_for_status` when a result carries no allocation."""


class PlausibilityWarning(UserWarning):
    """What is given is allowed and looks like a mistake, as of unit; see :meth:`edgealloc.Instance.check`."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Advice for an unknown name: the nearest known one; where none is near ``otherwise``, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else otherwise or f"known here: {', '.join(names)}"


def shown(value: object) -> str:
    """A value for a message, whatever it is and whoever made it: on one line, escaped, and cut if it is long."""
    try:
        text = ascii(value)
    except Exception:  # an integer of many digits, or an object of a stranger's making
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
