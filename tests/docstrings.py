"""What docstrings must state, as facts: ``python -m tests.docstrings`` prints them and fails on a breach.

Ruff checks that every public name has a docstring of numpydoc's form and names the errors that its own lines raise
(``D`` and ``DOC501`` in pyproject.toml). This adds what ruff does not know: numpydoc's validator over the public
names, shapes of arrays, and shapes in kernels.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from numpydoc.docscrape import NumpyDocString, get_doc_object
from numpydoc.validate import validate

from tests.house import CODE, sources
from tests.places import ROOT

FACES = (
    "edgealloc",
    "edgealloc.verify",
    "edgealloc.scenario",
    "edgealloc.rounds",
    "edgealloc.flower",
    "edgealloc.models",
)
# Rules of numpydoc: all of PR that says whether parameters are described and in order, returns and yields, a
# docstring at all, known sections in the usual order. Types are in the annotations and not said twice (no PR04).
RULES = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "PR07", "RT01", "RT03", "YD01"}
MOST_ARRAYS = 6  # of a kernel that need not state their shapes
ARRAY = re.compile(r"\b(?:\w*Array|ArrayLike|ndarray)\b")
OF_ALL = re.compile(r"\bShapes \[")
SHAPE = re.compile(r"[Ss]hape|\[")
_NAMES = r"`*(\w+(?:`*(?:,| and)\s+`*\w+)*)`*"
NUMBERS = re.compile(rf"\b[Nn]umbers?:\s+{_NAMES}|\b{_NAMES}:?\s+(?:(?:is|are)\s+)?(?:a\s+)?numbers?\b")
SHAPED = re.compile(rf"\b{_NAMES}\s+\[")


def public(faces: Iterable[str]) -> Iterator[tuple[str, object]]:
    """The functions and classes that faces export, and the public members that we wrote, by dotted name."""
    seen: set[object] = set()
    for face in faces:
        module = importlib.import_module(face)
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)) or value in seen:
                continue
            seen.add(value)
            yield f"{face}.{name}", value
            for member, inside in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(inside, "__func__", inside)  # of class methods; numpydoc wants the function
                if not member.startswith("_") and (inspect.isfunction(function) or isinstance(inside, property)):
                    yield f"{face}.{name}.{member}", function


def refused(named: Iterable[tuple[str, object]]) -> Iterator[str]:
    """What numpydoc finds at these objects, by :data:`RULES`.

    A function without parameters reads like a property: its summary says what it returns. A class needs no section
    of parameters if it is built otherwise (enumerations, protocols) or its fields carry their help with them.
    """
    for name, value in named:
        skipped: set[str] = set()
        if inspect.isclass(value) and _explains_itself(value):
            skipped = {"PR01"}
        elif inspect.isfunction(value) and not set(inspect.signature(value).parameters) - {"self", "cls"}:
            skipped = {"RT01", "YD01"}
        for code, text in validate(get_doc_object(value))["errors"]:
            if code in RULES - skipped:
                yield f"{name}: {code} {text}"


def _explains_itself(value: type) -> bool:
    if issubclass(value, enum.Enum) or getattr(value, "_is_protocol", False):
        return True
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    return bool(fields) and all("help" in field.metadata for field in fields if field.init)


def _value(name: str) -> object:
    """The object of a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise ImportError(name)


_parsed = functools.cache(ast.parse)  # three rules read the same text


def unshaped(path: Path) -> Iterator[str]:
    """Arrays in the Parameters sections of a file, of functions and of dataclasses, without a shape.

    ``Shapes [K].`` above the section speaks for all of them.
    """
    for node in ast.walk(_parsed(path.read_text())):
        if isinstance(node, ast.ClassDef):
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            types = {ast.unparse(item.target): ast.unparse(item.annotation) for item in fields}
        elif isinstance(node, ast.FunctionDef):
            types = {p.arg: ast.unparse(p.annotation) for p in _parameters(node) if p.annotation}
        else:
            continue
        if OF_ALL.search((ast.get_docstring(node) or "").partition("\n---")[0]):
            continue
        for name, text in _described(node).items():
            if ARRAY.search(types.get(name, "")) and not SHAPE.search(text):
                yield f"{path}:{node.lineno} {node.name}: no shape of {name}"


def shapeless(path: Path) -> Iterator[str]:
    """Public functions and methods of a file that take or give arrays, with a docstring that says no shape."""
    tree = _parsed(path.read_text())
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    for node in (item for owner in owners for item in owner.body):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        types = [p.annotation for p in _parameters(node)] + [node.returns]
        text = ast.get_docstring(node)
        if text and not SHAPE.search(text) and any(ARRAY.search(ast.unparse(t)) for t in types if t):
            yield f"{path}:{node.lineno} {node.name}: arrays, and no shape"


def unstated(path: Path) -> Iterator[str]:
    """Parameters of a file's kernels whose shape the docstring leaves open, of kernels with many arrays.

    Kernels have no annotations: what the docstring does not call a number counts as an array. ``rows [K, 8]``,
    ``lower, upper [K]`` and ``mu, nu numbers`` (or ``numbers: mu, nu``) are read, and so is a Parameters section.
    """
    for node in ast.walk(_parsed(path.read_text())):
        if not isinstance(node, ast.FunctionDef) or not any(map(_is_kernel, node.decorator_list)):
            continue
        text = ast.get_docstring(node) or ""
        described = _described(node)
        numbers = _listed(NUMBERS, text) | {name for name, words in described.items() if "number" in words}
        shapes = _listed(SHAPED, text) | {name for name, words in described.items() if SHAPE.search(words)}
        arrays = [p.arg for p in _parameters(node) if p.arg not in numbers]
        missing = [name for name in arrays if name not in shapes]
        if len(arrays) > MOST_ARRAYS and missing:
            yield f"{path}:{node.lineno} {node.name}: no shape of {', '.join(missing)}"


def _parameters(node: ast.FunctionDef) -> list[ast.arg]:
    """What a function takes, its own object not counted."""
    both = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [p for p in both if p.arg not in ("self", "cls")]


def _described(node: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    """What the Parameters section of a docstring, or that of Attributes, says of each name."""
    text = ast.get_docstring(node) or ""
    if not re.search(r"^(Parameters|Attributes)\n---", text, re.MULTILINE):
        return {}
    return dict(_entries(text))


@functools.cache
def _entries(text: str) -> tuple[tuple[str, str], ...]:
    read = NumpyDocString(text)
    entries = [*read["Parameters"], *read["Attributes"]]
    return tuple((name, " ".join([kind, *words])) for names, kind, words in entries for name in names.split(", "))


def _listed(pattern: re.Pattern[str], text: str) -> set[str]:
    """Names that a text lists in the places that a pattern finds."""
    lists = [group for match in pattern.finditer(text) for group in match.groups() if group]
    return {name for names in lists for name in re.findall(r"\w+", names)}


def _is_kernel(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).partition("(")[0].rpartition(".")[2] == "kernel"


def main() -> int:
    """Print the facts; 1 on a breach."""
    names = list(public(FACES))
    files = list(sources(ROOT, CODE))
    faults = list(refused(names))
    for path in files:
        faults += [*unshaped(ROOT / path), *shapeless(ROOT / path), *unstated(ROOT / path)]
    print(f"docstrings of {len(names)} public names and of the kernels and arrays in {len(files)} files")
    print("\n".join(faults).replace(f"{ROOT}/", "") or "parameters, returns and shapes are stated")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
