"""Which kernels a first solve needs, and for which argument types: ``kernels.json`` beside this file.

The list is written by ``python -m benchmarks.kernel_list --write``. A kernel that is missing from it is compiled
when it is first called, as ever; one that is listed and no longer there is passed over.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import types as numba_types

from edgealloc.solvers.compiling.kernel import KERNELS

__all__ = ["Entry", "Use", "every_entry", "list_text", "use_of"]

PATH = Path(__file__).with_name("kernels.json")
_PACKAGE = "edgealloc.solvers."
types: Any = numba_types  # numba has types of its own for a part of what it offers


@dataclass(frozen=True, slots=True)
class Entry:
    """A specialisation of a kernel.

    Parameters
    ----------
    module, name
        Where the kernel is; the module without ``edgealloc.solvers.``.
    signature
        numba types of the arguments.
    """

    module: str
    name: str
    signature: tuple[Any, ...]

    def dispatcher(self) -> Any:
        """The object of numba for the kernel, None where there is no such kernel any more."""
        try:
            import_module(_PACKAGE + self.module)
        except ImportError:  # renamed, or its optional package is missing
            return None
        kernel = KERNELS.get((_PACKAGE + self.module, self.name, False))
        return None if kernel is None else kernel.dispatcher


@dataclass(frozen=True, slots=True)
class Use:
    """What a first solve needs, as places in the list.

    Parameters
    ----------
    called
        Kernels that Python calls. Their files hold the code of those that they call.
    inner
        Kernels that only kernels call.
    """

    called: tuple[int, ...] = ()
    inner: tuple[int, ...] = ()


def every_entry() -> tuple[Entry, ...]:
    """The whole list."""
    return _read()[0]


def use_of(name: str) -> Use:
    """What a first solve needs by ``method access``, as ``convex fdma``; nothing for an unknown one."""
    return _read()[1].get(name, Use())


@functools.cache
def _read() -> tuple[tuple[Entry, ...], dict[str, Use]]:
    data = json.loads(PATH.read_text(encoding="utf-8"))
    kinds = [_decoded(kind) for kind in data["types"]]
    entries = tuple(Entry(where, name, tuple(kinds[i] for i in at)) for where, name, at in data["kernels"])
    return entries, {name: Use(tuple(use[0]), tuple(use[1])) for name, use in data["uses"].items()}


def list_text(uses: dict[str, dict[Entry, bool]]) -> str:
    """The contents of the file, from the kernels of each use and whether Python called them."""
    order = sorted({e for use in uses.values() for e in use}, key=lambda e: (e.module, e.name, str(e.signature)))
    kinds = sorted({kind for entry in order for kind in entry.signature}, key=str)
    place = {entry: i for i, entry in enumerate(order)}
    lines = [[e.module, e.name, [kinds.index(kind) for kind in e.signature]] for e in order]
    split = {
        name: [sorted(place[e] for e, called in use.items() if called is wanted) for wanted in (True, False)]
        for name, use in sorted(uses.items())
    }
    blocks = [
        ",\n".join(json.dumps(_encoded(kind)) for kind in kinds),
        ",\n".join(json.dumps(line) for line in lines),
        ",\n".join(f"{json.dumps(name)}: {json.dumps(use)}" for name, use in split.items()),
    ]
    return '{{"types": [\n{}\n],\n"kernels": [\n{}\n],\n"uses": {{\n{}\n}}}}\n'.format(*blocks)


def _encoded(kind: Any) -> Any:
    """A numba type as text or lists for JSON.

    Raises
    ------
    TypeError
        For a type other than numbers, arrays and tuples of them.
    """
    if isinstance(kind, types.Array):
        return ["array", _encoded(kind.dtype), kind.ndim, kind.layout, kind.mutable, kind.aligned]
    if isinstance(kind, types.BaseTuple):
        return ["tuple", *(_encoded(item) for item in kind.types)]
    if isinstance(kind, types.Omitted):
        return ["omitted", kind.value]
    if isinstance(kind, types.Number | types.Boolean | types.NoneType):
        return kind.name
    raise TypeError(f"no text for the type {kind!r}: pass numbers, arrays or tuples of them to kernels")


def _decoded(text: Any) -> Any:
    """The numba type that :func:`_encoded` wrote."""
    if isinstance(text, str):
        return types.boolean if text == "bool" else getattr(types, text)
    head, *rest = text
    if head == "array":
        dtype, ndim, layout, mutable, aligned = rest
        return types.Array(_decoded(dtype), ndim, layout, readonly=not mutable, aligned=aligned)
    if head == "tuple":
        return types.Tuple(tuple(_decoded(item) for item in rest))
    return types.Omitted(rest[0])
