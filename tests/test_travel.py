"""Results are data: they pickle, copy and travel between processes, and say the same wherever they arrive."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.certificate.file import save_certificate
from edgealloc.data.instance import Instance
from edgealloc.data.spec import UnderfitCurve, UnderfitLogistic
from edgealloc.errors import EdgeallocError
from edgealloc.files.solution import dict_from_solution
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.solution import verify_files

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda result: pickle.loads(pickle.dumps(result)),
    "deepcopy": copy.deepcopy,
}


def halved(keep: Any) -> Any:
    """A user's underfitting term."""
    return 0.5 / np.asarray(keep) - 0.5


def _cell(access: Any = "fdma", **changes: Any) -> Instance:
    size = {"devices": 2, "subcarriers": 8} if access == "ofdma" else {"devices": 3}
    return make_cell(CellOptions(access=access, **size), np.random.default_rng(1)).instance.with_changes(**changes)


def _with_bound(instance: Instance, **changes: Any) -> Instance:
    from dataclasses import replace

    return instance.with_changes(bound=replace(instance.bound, **changes))


def problems(menu: Any) -> dict[str, Problem]:
    """One problem of every kind, by name."""
    fdma, ofdma = _cell(), _cell("ofdma")
    curve = UnderfitCurve([0.01, 0.3, 1.0], [3.0, 0.6, 0.0])
    levels = (None, [0.1, 0.2], [0.3])
    return {
        "fdma": Problem(fdma),
        "common": Problem(fdma.with_changes(common_keep=True)),
        "levels": Problem(fdma.with_changes(keep_levels=levels, adapter_options=(menu, None, menu))),
        "common levels": Problem(fdma.with_changes(common_keep=True, keep_levels=([0.1, 0.2],) * 3)),
        "curve": Problem(_with_bound(fdma, underfit="curve", underfit_curve=curve)),
        "logistic": Problem(
            _with_bound(fdma, underfit="logistic", underfit_logistic=UnderfitLogistic(0.3, 2.5)),
        ),
        "by device": Problem(fdma.with_changes(device_underfit=(curve, UnderfitLogistic(0.3, 2.5), None))),
        "own term": Problem(fdma, halved),
        "rb": Problem(_cell("rb", exclusion_penalty=5.0).take([0, 1])),
        "short": Problem(fdma.with_changes(bandwidth_hz=1e-3 * fdma.bandwidth_hz)),
        "ofdma": Problem(ofdma),
        "ofdma common": Problem(ofdma.with_changes(common_keep=True)),
        "ofdma menu": Problem(ofdma.with_changes(adapter_options=(menu, None), exclusion_penalty=5.0)),
        "ofdma own term": Problem(ofdma, halved),
        "ofdma short": Problem(ofdma.with_changes(bandwidth_hz=1e-3 * ofdma.bandwidth_hz)),
    }


@pytest.fixture(scope="module")
def kinds(menu) -> dict[str, Problem]:
    return problems(menu)


def arrays(data: Any, seen: set[int] | None = None) -> list[np.ndarray]:
    """Every array in a dataclass of fields, tuples and dataclasses."""
    if isinstance(data, np.ndarray):
        return [data]
    parts = [getattr(data, f.name) for f in fields(data)] if is_dataclass(data) else data
    return [array for part in parts for array in arrays(part)] if isinstance(parts, list | tuple) else []


def words(result: Result, folder: Any) -> dict[str, bytes]:
    """What a result writes down: its solution, its certificate or why there is none, and the verdict on them."""
    instance = result.problem.instance
    found = {"solution": result.save(folder / "solution.json").read_bytes()}
    try:
        proved, proof = certified(result, 1e-3)
    except EdgeallocError as error:
        return found | {"certificate": str(error).encode()}
    from edgealloc.files.instance import save_instance

    paths = save_instance(instance, folder / "case.json"), proved.save(folder / "proved.json")
    path = save_certificate(proof, folder / "proof.json")
    report = verify_files(*paths, path, rel_gap=1e-3)
    assert report.ok, str(report)
    return found | {"certificate": path.read_bytes(), "report": str(report).encode()}


def same(result: Result, folder: Any, *copies: Result) -> None:
    said = words(result, folder)
    for arrived in copies:
        assert arrived is not result
        assert arrived.problem.instance == result.problem.instance
        assert words(arrived, folder) == said
        parts = [arrived.problem.instance, *([] if arrived.allocation is None else [arrived.allocation])]
        held = arrays(parts)
        assert len(held) > 10
        assert not any(array.flags.writeable for array in held)


KINDS = (
    *("fdma", "common", "levels", "common levels", "curve", "logistic", "by device", "own term", "rb", "short"),
    *("ofdma", "ofdma common", "ofdma menu", "ofdma own term", "ofdma short"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_results_survive_copies(kinds, tmp_path, kind) -> None:
    result = solve(kinds[kind], rel_gap=1e-3, time_limit=30.0)
    assert result.status in ("optimal", "infeasible"), result
    same(result, tmp_path, *(copied(result) for copied in COPIES.values()))


METHODS = {
    "psca": "numpy",
    "psca+": "numpy",
    "baseline:equal": "numpy",
    "highs": "highspy",
    "scip": "pyscipopt",
    "cvxpy": "cvxpy",
    "pyomo:ipopt": "casadi",
}


@pytest.mark.parametrize("method", METHODS)
def test_results_of_every_other_method_survive_copies(kinds, tmp_path, method) -> None:
    pytest.importorskip(METHODS[method])
    result = solve(kinds["fdma"], method, rel_gap=1e-2, time_limit=5.0)
    assert result.status.has_allocation, result
    same(result, tmp_path, *(copied(result) for copied in COPIES.values()))


def test_solutions_stay_read_only(by_hand, make_instance) -> None:
    solution = by_hand(make_instance()).solution()
    for some in (solution, *(copied(solution) for copied in COPIES.values())):
        assert len(arrays(some)) > 5
        assert not any(array.flags.writeable for array in arrays(some))
        assert dict_from_solution(some) == dict_from_solution(solution)


JOB = """
import numpy as np
from edgealloc.api import solve

def term(keep):
    return 0.5 / np.asarray(keep) - 0.5

def job(problem):
    return solve(problem, rel_gap=1e-3, time_limit=30.0)
"""
SENT = ("fdma", "levels", "ofdma", "ofdma short")


@pytest.fixture
def sent(kinds, tmp_path, monkeypatch) -> tuple[Callable[[Problem], Result], list[Problem]]:
    """A job in a module that other processes can import, and problems for it, one with a term from there."""
    (tmp_path / "travel_job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    import travel_job

    own = Problem(kinds["ofdma"].instance, travel_job.term)
    return travel_job.job, [*(kinds[kind] for kind in SENT), own]


@pytest.mark.slow  # so does joblib's start its workers
def test_results_come_back_from_a_spawned_process(sent, tmp_path) -> None:
    job, given = sent
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        arrived = pool.map(job, given)
    _as_at_home(job, given, arrived, tmp_path)


def test_results_come_back_through_joblib(sent, tmp_path) -> None:
    joblib = pytest.importorskip("joblib")
    job, given = sent
    arrived = joblib.Parallel(n_jobs=2, max_nbytes=100)(joblib.delayed(job)(problem) for problem in given)
    _as_at_home(job, given, arrived, tmp_path)


def _as_at_home(job: Any, given: list[Problem], arrived: list[Result], folder: Any) -> None:
    from dataclasses import replace

    assert len(arrived) == len(given) > 0
    for problem, there in zip(given, arrived, strict=True):
        same(replace(job(problem), seconds=there.seconds), folder, there)


def test_a_lambda_stays_at_home_and_pickle_says_so(kinds) -> None:
    result = solve(Problem(kinds["fdma"].instance, lambda s: 1.0 / s - 1.0), rel_gap=1e-2, time_limit=30.0)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(result)
