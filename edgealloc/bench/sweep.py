"""The sweep behind ``edgealloc bench``: cases x methods in parallel, each finished cell on disk at once.

A cell is one case solved by one method. Its row goes to a file of its own, named by a digest of what it depends
on, so a killed sweep continues where it was and gives the frame that an uninterrupted one gives, times apart. A
file that was not written here, or was changed, is no such row (:mod:`edgealloc.bench.seal`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.bench.seal import read_row, write_row
from edgealloc.bench.suites import Case, Suite
from edgealloc.errors import EdgeallocError, RefusedError, needs, printable
from edgealloc.files.disk import make_folder, write_file
from edgealloc.files.instance import instance_hash
from edgealloc.files.lock import sole_writer
from edgealloc.method import Method
from edgealloc.methods import adopt, find_method, foreign_code, foreign_methods

if TYPE_CHECKING:
    import pandas as pd

    from edgealloc.formulation.result import Result

__all__ = ["BenchOptions", "cells_of", "frame_of", "run_suite", "save_frame"]

logger = logging.getLogger("edgealloc")
PACKAGES = ("numpy", "scipy", "numba", "highspy")
TIMES = ("seconds", "seconds_to_psca", "seconds_to_1_percent")  # columns that differ between runs


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How a sweep is run.

    Parameters
    ----------
    jobs
        Cells at a time; -1 for all cores.
    backend
        Of joblib: ``loky`` (processes), ``sequential``, or ``dask`` and ``ray`` once registered there.
    rel_gap, time_limit
        For every method, as in :func:`edgealloc.solve`.
    seed
        For methods that draw at random.
    """

    jobs: int = 1
    backend: str = "loky"
    rel_gap: float = 1e-4
    time_limit: float | None = 60.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One case and one method, with everything the row depends on."""

    suite: str
    case: Case
    method: str
    rel_gap: float
    time_limit: float | None
    seed: int

    @property
    def key(self) -> str:
        """Name of the row's file: the case, the method, and a digest of all that the row depends on.

        A given instance counts by what it is, whatever it is called.
        """
        code, given, rows = foreign_code(self.method), self.case.given, self.case.constraints
        data = asdict(replace(self, case=replace(self.case, given=None, constraints=())))
        del data["case"]["given"], data["case"]["constraints"]
        name = self.case.name
        if given is not None:
            data |= {"suite": "", "case": instance_hash(given)}
            name = data["case"][:16]
        data |= ({"code": code} if code else {}) | ({"constraints": list(map(repr, rows))} if rows else {})
        text = json.dumps(data, sort_keys=True, default=_plain)
        digest = hashlib.sha256(f"{version('edgealloc')} {text}".encode()).hexdigest()[:16]
        method = self.method.replace(":", "_").replace("+", "plus")
        return f"{name}.{method}.{digest}.json"

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row under the names of this cell: another may have the same instance."""
        return row | {"suite": self.suite, "case": self.case.name}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def cells_of(suite: Suite, methods: tuple[str, ...], options: BenchOptions) -> list[Cell]:
    """All cells of a sweep, in the order of the frame."""
    names = [case.name for case in suite.cases]
    assert len(set(names)) == len(names), "names of cases must be unique"
    return [
        Cell(suite.name, case, method, options.rel_gap, options.time_limit, options.seed)
        for case in suite.cases
        for method in methods
    ]


@cache
def _warm(method: str, access: str) -> None:
    """Let a method compile what it compiles, once per process, so that no cell's time contains it."""
    from edgealloc.api import solve
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions

    columns = 4 if access == "ofdma" else None
    drawn = make_cell(CellOptions(devices=2, access=access, subcarriers=columns), np.random.default_rng(0))  # type: ignore[arg-type]
    with contextlib.suppress(EdgeallocError):  # the cell itself says why
        solve(drawn.instance, method, time_limit=60.0)


def run_cell(cell: Cell) -> dict[str, Any]:
    """Solve one cell and check it; whatever goes wrong is a row too."""
    from edgealloc.api import solve
    from edgealloc.solvers.base import Control
    from edgealloc.verify.solution import verify

    row: dict[str, Any] = {
        "suite": cell.suite,
        "case": cell.case.name,
        "method": cell.method,
        "case_seed": cell.case.seed,
        "seed": cell.seed,
        "x": cell.case.x,
        "x_label": cell.case.x_label,
        "rel_gap_asked": cell.rel_gap,
        **{f"version_{name}": version(name) for name in ("edgealloc", *PACKAGES)},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    try:
        instance = cell.case.instance()
        row |= {
            "instance_hash": instance_hash(instance),
            "access": instance.access,
            "num_devices": instance.num_devices,
            "num_subcarriers": instance.num_subcarriers or 0,
        }
        rows = cell.case.constraints
        limits: dict[str, Any] = {"rel_gap": cell.rel_gap, "time_limit": cell.time_limit, "seed": cell.seed}
        with Control.of_a_series():  # what Ctrl-C cut short is no row
            _warm(cell.method, instance.access)
            result = solve(instance, cell.method, constraints=rows, **limits)
        report = verify(instance, result.solution(), constraints=rows, rel_gap=cell.rel_gap)
        row |= {
            "answered_by": result.method,
            "status": result.status.value,
            "objective": result.objective,
            "lower_bound": result.lower_bound,
            "free_objective": result.free_objective,
            "verified": report.ok,
            "seconds": result.seconds,
            "iterations": result.iterations,
            "nodes": result.nodes,
            "message": result.message.splitlines()[0] if result.message else "",
            "incumbents": _incumbents(result),
        }
    except EdgeallocError as error:  # the method does not take the case, or failed with a reason
        row |= {
            "status": "refused" if isinstance(error, RefusedError) else "error",
            "verified": False,
            "message": f"{type(error).__name__}: {error}".splitlines()[0],
        }
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }


def _incumbents(result: Result) -> list[tuple[float, float]]:
    """(seconds, objective) whenever an exact method had a better allocation; the trace of others shows no such."""
    from edgealloc.data.outcome import Status

    steps: list[tuple[float, float]] = []
    if result.status in (Status.OPTIMAL, Status.FEASIBLE):
        for snapshot in result.trace:
            if math.isfinite(snapshot.objective) and not (steps and snapshot.objective >= steps[-1][1]):
                steps.append((snapshot.seconds, snapshot.objective))
        if not steps or result.objective < steps[-1][1]:
            steps.append((result.seconds, result.objective))
    return steps


def run_suite(
    suite: Suite,
    folder: str | Path,
    methods: tuple[str, ...] = (),
    options: BenchOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Run what is not on disk yet, and return the frame of all cells.

    Parameters
    ----------
    suite, methods
        What to run; the suite's own methods when none are given.
    folder
        Rows go to ``folder/cells``; delete it to start anew. Only one run may write there at a time.
    options
        Parallelism, gap and limits.
    progress
        Called with (done, total).

    Raises
    ------
    InputError
        For an unknown method, and when another run writes to the folder.
    MissingPackageError
        Without joblib or pandas.
    """
    _need("joblib")
    _need("pandas")
    options = options or BenchOptions()
    methods = methods or suite.methods
    _known(methods)
    cells = cells_of(suite, methods, options)
    store = Path(folder) / "cells"
    with sole_writer(store):
        there = [cell.key for cell in cells if (store / cell.key).exists()]
        known = {key: row for key in there if (row := read_row(store / key)) is not None}
        if len(known) < len(there):
            logger.warning(
                "%d of %d cells in %s are not as this user's edgealloc wrote them: solved again",
                len(there) - len(known), len(there), printable(store),
            )  # fmt: skip
        if progress is not None:
            progress(len(known), len(cells))
        left = {cell.key: cell for cell in cells if cell.key not in known}  # two may have the same instance
        for cell, row in _rows(list(left.values()), options):
            write_row(row, store / cell.key)
            known[cell.key] = row
            if progress is not None:
                progress(len(known), len(cells))
    return frame_of([cell.named(known[cell.key]) for cell in cells])


def _rows(cells: list[Cell], options: BenchOptions) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Rows as they are finished; back ends that cannot stream are given batches."""
    import joblib

    if options.backend == "sequential" or options.jobs == 1:
        yield from map(_pair, cells)
        return
    theirs = foreign_methods({cell.method for cell in cells})
    with joblib.parallel_config(backend=options.backend, n_jobs=options.jobs):
        if options.backend in ("loky", "multiprocessing", "threading"):
            stream = joblib.Parallel(return_as="generator_unordered")
            yield from stream(joblib.delayed(_pair)(cell, theirs) for cell in cells)
            return
        batch = 4 * max(options.jobs, 2)
        for start in range(0, len(cells), batch):
            yield from joblib.Parallel()(
                joblib.delayed(_pair)(cell, theirs) for cell in cells[start : start + batch]
            )


def _pair(cell: Cell, theirs: tuple[Method, ...] = ()) -> tuple[Cell, dict[str, Any]]:
    adopt(theirs)  # in a process of its own no method was registered
    return cell, run_cell(cell)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with gaps: against the case's best proven bound, whichever method proved it.

    ``own_gap`` is that to the bound that the method proved itself, nan where it proved none.
    A case is ``ample`` where its best objective is within the gap asked for of G_free: scarcity then costs less
    than the bounds can tell, and an excess gap, 0 / 0, is left out (nan); ``gap``, relative to G, stands.
    ``seconds_to_psca`` is when a method had an allocation as good as that of ``psca``, ``seconds_to_1_percent``
    when it had one with an excess gap of 1 %; nan where it never did.
    """
    import pandas as pd

    from edgealloc.data.outcome import excess_gap, relative_gap

    frame = pd.DataFrame(rows)
    for column in ("objective", "lower_bound", "free_objective", "seconds", "x"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce") if column in frame else float("nan")
    feasible = frame["verified"].astype(bool) & frame["objective"].notna()
    frame["objective"] = frame["objective"].where(feasible)
    bound = frame["lower_bound"].where(frame["status"] != "infeasible")
    frame["best_bound"] = bound.groupby(frame["case"]).transform("max")
    frame["best_objective"] = frame["objective"].groupby(frame["case"]).transform("min")
    known = feasible & frame["best_bound"].notna()
    free = frame["free_objective"]
    frame["ample"] = frame["best_objective"] - free <= frame["rel_gap_asked"] * free.abs()
    frame["own_gap"] = [
        relative_gap(value, own) if ok and own == own else math.nan
        for ok, value, own in zip(feasible, frame["objective"], frame["lower_bound"], strict=True)
    ]
    gaps, excess = [], []
    columns = (frame[c] for c in ("ample", "objective", "best_bound", "free_objective"))
    for ok, ample, value, proven, least in zip(known, *columns, strict=True):
        gaps.append(relative_gap(value, proven) if ok else math.nan)
        excess.append(excess_gap(value, proven, least) if ok and not ample else math.nan)
    frame["gap"], frame["excess_gap"] = gaps, excess
    return _reached(frame)


def _reached(frame: pd.DataFrame) -> pd.DataFrame:
    """When each method was as good as P-SCA, and within 1 %; the list of incumbents is dropped."""
    from edgealloc.data.outcome import excess_gap

    local = frame[frame["method"] == "psca"].set_index("case")["objective"].to_dict()
    steps = frame["incumbents"] if "incumbents" in frame else [None] * len(frame)
    as_good, near = [], []
    columns = (frame[c] for c in ("case", "seconds", "objective", "best_bound", "free_objective"))
    for found, case, seconds, value, proven, free in zip(steps, *columns, strict=True):
        listed = found if isinstance(found, list) and found else [(seconds, value)]
        goal = local.get(case, math.nan)
        as_good.append(next((t for t, v in listed if v <= goal + 1e-9 * abs(goal)), math.nan))
        near.append(
            next((t for t, v in listed if v == v and excess_gap(v, proven, free) <= 0.01), math.nan)
            if proven == proven
            else math.nan
        )
    frame["seconds_to_psca"], frame["seconds_to_1_percent"] = as_good, near
    return frame.drop(columns="incumbents", errors="ignore")


def save_frame(frame: pd.DataFrame, folder: Path, name: str) -> list[Path]:
    """Write CSV and, with pyarrow, Parquet; returns the paths."""
    make_folder(folder)
    paths = [write_file(frame.to_csv(index=False, lineterminator="\n"), folder / f"{name}.csv")]
    if find_spec("pyarrow") is not None:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        paths.append(write_file(buffer.getvalue(), folder / f"{name}.parquet"))
    return paths


def _known(methods: tuple[str, ...]) -> None:
    for name in methods:
        if name != "auto":
            find_method(name)


def _need(package: str) -> None:
    needs(package, "bench", "the benchmark")
