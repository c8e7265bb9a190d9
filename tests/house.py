"""The house rules that no linter knows, as facts: ``python -m tests.house`` prints them and fails on a breach.

How many files a folder holds, how long files are, whether a file's name repeats its folder's, whether files import
private names of others or each other in a circle (imports inside functions count), whether one imports through a
face what its room may not know, whether anything is printed or written but through the one function for it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import grimp
import networkx as nx

from tests.places import ROOT

CODE = ("edgealloc", "solvers", "models")
BESIDE = ("tests", "benchmarks", "examples")
MOST_FILES, MOST_LINES = 13, 400  # of a folder, of a file
DOORS = {  # what prints and writes, and the one file that may call it
    "echo": "edgealloc/cli/shared.py",
    "secho": "",
    "savefig": "edgealloc/report/canvas.py",
    "to_csv": "",  # into a file, that is; as text it goes through write_file
    "write_text": "",
}
# Programs of their own: one writes the schemas, the other answers a process by lines.
PRINTERS = ("edgealloc/files/schema.py", "solvers/compiling/worker.py")


def sources(root: Path, folders: Iterable[str]) -> Iterator[Path]:
    """Python files below some folders of a tree, relative to it; links are not followed."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root)
            if not any((root / parent).is_symlink() for parent in inside.parents):
                yield inside


def crowded(root: Path) -> dict[str, int]:
    """Folders of the code with more files than :data:`MOST_FILES`, the faces (``__init__``) not counted."""
    counts = Counter(str(path.parent) for path in sources(root, CODE) if path.stem != "__init__")
    return {folder: count for folder, count in counts.items() if count > MOST_FILES}


def long(root: Path) -> dict[str, int]:
    """Files with more lines than :data:`MOST_LINES`, tests, benchmarks and examples among them."""
    lengths = {str(path): len((root / path).read_text().splitlines()) for path in sources(root, (*CODE, *BESIDE))}
    return {path: lines for path, lines in lengths.items() if lines > MOST_LINES}


def repeated(root: Path) -> list[str]:
    """Files whose name has the name of a folder that they stand in as one of its words."""
    return [
        str(path)
        for path in sources(root, (*CODE, "tests"))
        if set(path.stem.split("_")) & (set(path.parent.parts) - {"tests"})
    ]


def private(root: Path) -> list[str]:
    """Imports of names with a leading underscore, of modules and of what is in them."""
    found = []
    for path in sources(root, (*CODE, *BESIDE)):
        for node in ast.walk(ast.parse((root / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                of = (node.module or "").split(".")
                found += [f"{path}: {n} of {node.module}" for n in names if any(map(_hidden, [n, *of]))]
            else:  # a module of Python may well begin with an underscore
                found += [f"{path}: {name}" for name in names if any(map(_hidden, name.split(".")[1:]))]
    return found


def through_faces(root: Path) -> list[str]:
    """Imports from a package above the file that are no modules of it, and imports that give a whole package.

    A face imports what it offers when that is asked for: the import rules see only that the face was imported.
    """
    found = []
    for path in sources(root, CODE):
        inside = path if path.parts[0] == "edgealloc" else Path("edgealloc") / path
        above = {".".join(parent.parts) for parent in inside.parents}
        for node in ast.walk(ast.parse((root / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                found.append(f"{path}: a relative import")
            elif isinstance(node, ast.ImportFrom) and node.module in above:
                names = [alias.name for alias in node.names if not _is_module(root, node.module, alias.name)]
                found += [f"{path}: {name} of {node.module}" for name in names]
            elif isinstance(node, ast.Import):
                whole = [a.name for a in node.names if a.name.split(".")[0] == "edgealloc"]
                named = {a.name for a in node.names if a.asname and a.name != "edgealloc"}
                found += [f"{path}: {name}, without a name" for name in whole if name not in named]
    return found


def _is_module(root: Path, package: str, name: str) -> bool:
    place = Path(*package.split("."), name)
    own = place.relative_to("edgealloc")
    home = root / (own if own.parts[0] in CODE else place)
    return home.is_dir() or home.with_suffix(".py").exists()


def _hidden(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def beside_the_doors(root: Path) -> list[str]:
    """Calls that print, or write a file, but through the function that does so for all."""
    return [
        f"{path}:{node.lineno}: {name}"
        for path in sources(root, CODE)
        for node in ast.walk(ast.parse((root / path).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)
        for name in [node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id]
        if (DOORS.get(name, str(path)) != str(path) and (name != "to_csv" or node.args))
        or (isinstance(node.func, ast.Name) and name == "print" and str(path) not in PRINTERS)
    ]


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or around a corner."""
    graph = grimp.build_graph("edgealloc", cache_dir=None)
    arrows = nx.DiGraph(
        (module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)
    )
    return [sorted(group) for group in nx.strongly_connected_components(arrows) if len(group) > 1]


def main() -> int:
    """Print the facts; 1 on a breach."""
    counts = Counter(str(path.parent) for path in sources(ROOT, CODE) if path.stem != "__init__")
    lengths = [len((ROOT / path).read_text().splitlines()) for path in sources(ROOT, CODE)]
    print(f"{sum(counts.values())} files in {len(counts)} folders, at most {max(counts.values())} in one")
    print(f"{sum(lengths)} lines, at most {max(lengths)} in a file")
    faults = [
        *(f"{folder} holds {count} files, more than {MOST_FILES}" for folder, count in crowded(ROOT).items()),
        *(f"{path} has {lines} lines, more than {MOST_LINES}" for path, lines in long(ROOT).items()),
        *(f"{path} repeats the name of its folder" for path in repeated(ROOT)),
        *(f"private import, {found}" for found in private(ROOT)),
        *(f"imported past the import rules, {found}" for found in through_faces(ROOT)),
        *(f"printed or written past the one function for it, {found}" for found in beside_the_doors(ROOT)),
        *(f"these import each other: {', '.join(group)}" for group in circles()),
    ]
    print(
        "\n".join(faults)
        or "no crowded folder, no long file, no repeated name, no private import, no circle, one door for outputs"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
