"""Mutation testing of the checker: ``make mutants``, or ``python -m tests.mutants --sample 400``.

cosmic-ray lists the mutants, one token changed in each, keeps them with their outcomes in a session (SQLite, which
its own ``cr-report`` and ``cr-html`` read too), and makes the changed source. What runs the tests is here: a child
for each mutant, forked from a process that has all libraries loaded, imports the changed module from memory. So no
file is touched, and most mutants take a second or two. First the tests that need no solver, then those of the
mutant's own room. A session that was stopped goes on where it ended.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from typing import Any

from tests.places import ROOT

ROOMS = ("edgealloc/verify", "edgealloc/certificate")
# Tests that need no solver, the quickest to notice first; then, by room, those that do.
FIRST = (
    "tests/verify/forging", "tests/verify/subcarriers/test_steps.py", "tests/verify/test_covers.py",
    "tests/verify/test_diagnosis.py", "tests/verify/test_folding.py", "tests/verify/test_work.py",
    "tests/verify/test_details.py", "tests/verify/test_form.py", "tests/verify/test_rules.py",
)  # fmt: skip
# Before them for one room: its formulas again in plain floats.
PLAIN = {
    "edgealloc/verify/proof": tuple(f"tests/verify/proof/test_{name}.py" for name in (
        "verdict", "enclosures", "cover", "planes", "model", "shares", "logistic_lines",
    )),
    "edgealloc/verify/training": ("tests/verify/test_ease.py",),
}  # fmt: skip
# The first room that holds the module counts.
THEN = {
    "edgealloc/verify/run.py": ("runs/test_claims.py", "runs/test_proofs.py", "runs/test_proofs_of_least.py"),
    "edgealloc/verify/training": ("runs/test_claims.py", "runs/test_proofs.py", "runs/test_proofs_of_least.py"),
    "edgealloc/certificate/run.py": ("runs/test_claims.py", "runs/test_proofs.py", "runs/test_proofs_of_least.py"),
    "edgealloc/verify/diagnosis.py": ("solvers/fdma/test_diagnose.py",),
    "edgealloc/verify/folding.py": ("test_constraints.py", "solvers/separable/test_slices.py"),
    "edgealloc/verify/constraints.py": ("test_constraints.py", "solvers/separable/test_slices.py"),
    "edgealloc/verify/proof": (
        "verify/proof", "verify/test_forged.py", "verify/test_corruptions.py", "verify/test_certificate.py",
    ),
    "edgealloc/verify/subcarriers": ("verify/test_forged.py", "verify/subcarriers", "verify/proof"),
    "edgealloc/certificate": (
        "verify/test_corruptions.py", "verify/test_extremes.py", "verify/subcarriers", "verify/test_work.py",
    ),
    "edgealloc/verify": (
        "verify/test_solution.py", "verify/test_clusters.py", "verify/test_objects.py",
        "verify/test_free_minimum.py", "verify/test_forged.py", "verify/test_corruptions.py",
        "verify/test_extremes.py", "verify/test_certificate.py",
    ),
}  # fmt: skip
CPU_S = 240  # a mutant that runs longer is killed: the tests themselves take less
MEMORY = 8 << 30  # bytes; one that asks for more fails
PRELOADED = (
    "pytest", "numpy", "flint", "pydantic", "hypothesis", "scipy.interpolate", "numba", "click.testing",
    "rich.console", "edgealloc.files.instance", "edgealloc.files.solution", "edgealloc.formulation.problem",
)  # fmt: skip
LIKE = ("-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib", "-c", "pyproject.toml")


def tests_of(path: str) -> tuple[tuple[str, ...], ...]:
    """Tests for a module, in stages: those without a solver, then those of its room."""
    room = next(room for room in THEN if path.startswith(room))
    own = (PLAIN[room],) if room in PLAIN else ()
    return (*own, FIRST, tuple(f"tests/{name}" for name in THEN[room]))


def sources() -> list[Path]:
    """Files of the checker, relative to the repository."""
    return [path.relative_to(ROOT) for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end: nothing evaluates them, so that their mutants are the same program."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for note in notes:
            if isinstance(note, ast.expr):
                found.append(((note.lineno, note.col_offset), (note.end_lineno or 0, note.end_col_offset or 0)))
    return found


def begin(session: Any, sample: int, seed: int) -> None:
    """Fill an empty session: all mutants, or so many of them drawn at random."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(":memory:", WorkDB.Mode.create) as everything:
        init(sources(), everything, {})
        items = list(everything.work_items)
    items.sort(key=lambda item: _place(item.mutations[0]))
    notes = {str(path): annotations(path) for path in sources()}
    items = [
        item
        for item in items
        for one in item.mutations
        if not any(low <= one.start_pos < high for low, high in notes[str(one.module_path)])
    ]
    print(f"{len(items)} mutants of {len(sources())} files", flush=True)
    chosen = random.Random(seed).sample(items, sample) if 0 < sample < len(items) else items
    session.add_work_items(chosen)


def _place(one: Any) -> tuple[Any, ...]:
    """Order of mutants, for a sample that is the same again."""
    return str(one.module_path), one.start_pos, one.operator_name, one.occurrence


class Changed(SourceLoader):
    """Loads one module from changed source, before any file is looked for."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        where = [str(ROOT / self.path.parent)] if self.path.stem == "__init__" else None
        spec = spec_from_loader(fullname, self, origin=str(ROOT / self.path), is_package=where is not None)
        if spec is not None and where is not None:
            spec.submodule_search_locations = where
        return spec

    def get_filename(self, fullname: str) -> str:
        return str(ROOT / self.path)

    def get_data(self, path: Any) -> bytes:
        return self.source.encode()

    def path_stats(self, path: Any) -> dict[str, Any]:
        raise OSError("no file")  # so that nothing compiled is read or written


def killed(path: Path, source: str, stages: Iterable[tuple[str, ...]]) -> tuple[bool, str]:
    """Whether the tests notice a changed module, and what they said at last."""
    for stage in stages:
        with tempfile.TemporaryFile("w+") as out:
            child = os.fork()
            if not child:
                _child(path, source, stage, out.fileno())
            _, status = os.waitpid(child, 0)
            out.seek(0)
            text = out.read()[-3000:]
        if status:
            return True, f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else text
    return False, ""


def _child(path: Path, source: str, tests: tuple[str, ...], out: int) -> None:
    """Run tests with a changed module, and end: with 0 if they pass."""
    code = 3
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_S, spent + CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        sys.meta_path.insert(0, Changed(name, path, source))
        import pytest

        code = int(pytest.main([*LIKE, *tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def tried(path: Path, operator: str, arguments: dict[str, Any], occurrence: int) -> tuple[bool | None, str, str]:
    """Whether a mutant is killed (None: it is the same text), what the tests said, and its difference."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    before = (ROOT / path).read_text()
    after = mutate_code(before, get_operator(operator)(**arguments), occurrence)
    if after is None or after == before:
        return None, "", ""
    dead, text = killed(path, after, tests_of(str(path)))
    return dead, text, "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))


def run(session: Any, workers: int) -> None:
    """Test what is pending, in a random order, so that a part of it is a sample too."""
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

    for module in (*PRELOADED, "cosmic_ray.mutating", "cosmic_ray.plugins"):
        importlib.import_module(module)
    early = [name for name in sys.modules if name.startswith(("edgealloc.verify", "edgealloc.certificate"))]
    assert not early, f"{early} are loaded before they could be changed"
    pending = list(session.pending_work_items)
    random.Random(1).shuffle(pending)
    rooms = {tests_of(str(item.mutations[0].module_path)): item.mutations[0].module_path for item in pending}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        unchanged = {  # what needs no solver is the same for all
            pool.submit(
                killed, path, (ROOT / path).read_text(), [s for s in stages if not n or s is not FIRST]
            ): path
            for n, (stages, path) in enumerate(rooms.items())
        }
        for task in as_completed(unchanged):
            noticed, text = task.result()
            assert not noticed, f"the tests of {unchanged[task]} fail without a change: {text}"
        print(f"the tests of {len(rooms)} rooms pass without a change", flush=True)
        tasks = {}
        for item in pending:
            one = item.mutations[0]
            arguments = (one.module_path, one.operator_name, one.operator_args, one.occurrence)
            tasks[pool.submit(tried, *arguments)] = item.job_id, one
        try:
            for number, task in enumerate(as_completed(tasks), 1):
                job, one = tasks[task]
                dead, text, diff = task.result()
                if dead is None:
                    session.set_result(job, WorkResult(WorkerOutcome.NO_TEST))
                    continue
                outcome = TestOutcome.KILLED if dead else TestOutcome.SURVIVED
                session.set_result(job, WorkResult(WorkerOutcome.NORMAL, text, outcome, diff))
                where = f"{one.module_path}:{one.start_pos[0]} {one.operator_name.split('/')[-1]}"
                print(f"{number}/{len(pending)} {outcome.value}: {where}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def report(session: Any) -> None:
    """Print counts per file, and every survivor with its changed line."""
    names = {item.job_id: item.mutations[0] for item in session.work_items}
    counts: dict[str, Counter[str]] = {}
    survivors = []
    for job, result in session.results:
        if result.test_outcome is None:
            continue
        path = str(names[job].module_path)
        counts.setdefault(path, Counter())[result.test_outcome.value] += 1
        if not result.is_killed:
            survivors.append((path, names[job].start_pos[0], result.diff))
    total: Counter[str] = sum(counts.values(), Counter())
    for path, count in sorted(counts.items()):
        print(f"{path}: {count['killed']} of {count.total()} killed")
    print(f"{total['killed']} of {total.total()} killed, {len(names) - total.total()} not tried")
    for path, line, diff in sorted(survivors):
        changed = [
            text for text in (diff or "").splitlines() if text[:1] in "+-" and text[:3] not in ("+++", "---")
        ]
        print(f"survivor {path}:{line}", *changed, sep="\n    ")


def main() -> None:
    """Go on with the session in a folder, or begin it; then report."""
    from cosmic_ray.work_db import WorkDB, use_db

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/mutants"), help="folder of the session")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants, drawn at random; 0: all")
    parser.add_argument("--seed", type=int, default=14, help="of the sample")
    parser.add_argument("--workers", type=int, default=2, help="so many mutants at a time")
    parser.add_argument("--report", action="store_true", help="only report")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with use_db(str(options.out / "session.sqlite"), WorkDB.Mode.create) as session:
        if not session.num_work_items:
            begin(session, options.sample, options.seed)
        if not options.report:
            run(session, options.workers)
        report(session)


if __name__ == "__main__":
    main()
