"""Numbers at the ends of the range of doubles, and beyond: refused, and never a traceback or a false proof."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flint import ctx

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.prices import seal
from edgealloc.cli.app import main
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, UnderfitCurve
from edgealloc.errors import InputError
from edgealloc.files.disk import read_json
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.files.solution import dict_from_solution, solution_from_dict
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.form import total
from edgealloc.verify.proof.device import farthest
from edgealloc.verify.proof.enclosures import Balls, Intervals, sum_below
from edgealloc.verify.solution import verify, verify_files
from tests.solvers.ofdma.oracle import random_ofdma

Data = dict[str, Any]
ENDS = (0.0, 1e-300, -1e-300, 1e300, -1e300, 1.7e308)
HUGE = (-(2**70), 10**400)
SCALES = (1e-300, 1e300, -1e300)
CURVE = UnderfitCurve(np.array([0.01, 0.2, 0.5, 1.0]), np.array([3.0, 1.2, 0.4, 0.1]))

STEPS = pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])


def fields_of(at: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all numbers, and of all lists of numbers."""
    for key, value in at.items() if isinstance(at, dict) else enumerate(at):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, key)
        elif isinstance(value, dict | list):
            if isinstance(value, list) and value and isinstance(value[0], float):
                yield (*path, key)
            yield from fields_of(value, (*path, key))


def changed(data: Data, path: tuple[Any, ...], by: Callable[[Any], Any]) -> Data:
    """A copy with one number, or each of one list, changed."""
    found = copy.deepcopy(data)
    at: Any = found
    for key in path[:-1]:
        at = at[key]
    value = at[path[-1]]
    at[path[-1]] = [by(v) for v in value] if isinstance(value, list) else by(value)
    return found


def extremes(data: Data, rng: np.random.Generator, each: int = 1, step: int = 1) -> Iterator[tuple[str, Data]]:
    """Every kind of field, at ``each`` places at random, with every ``step``-th extreme number or scale."""
    kinds: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for path in fields_of(data):
        kind = tuple(key for key in path if isinstance(key, str)), isinstance(path[-1], str)
        kinds.setdefault(kind, []).append(path)
    ways: list[Callable[[Any], Any]] = [*((lambda _, v=v: v) for v in (*ENDS, *HUGE))]
    ways += [lambda x, f=f: x * f for f in SCALES]
    first = 0
    for places in kinds.values():
        for i in rng.permutation(len(places))[:each].tolist():
            first = (first + len(ways)) % step
            for way in ways[first::step]:
                yield str(places[i]), changed(data, places[i], way)


def accepted(instance: Instance, certificate: Data) -> bool:
    """Whether the checker accepts a sealed certificate; it may refuse by InputError, and raise nothing else."""
    certificate["sha256"] = seal(certificate)
    try:
        return not check_certificate(instance, certificate_from_dict(certificate)).faults
    except InputError:
        return False


def make_case(make_instance: Any, kind: str) -> tuple[Instance, str]:
    """A small feasible instance of a kind, and the method that proves its bound."""
    scarce: dict[str, Any] = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
    levels = (np.array([0.05, 0.2, 0.4]),) * 4
    curve = BoundSpec(underfit="curve", underfit_curve=CURVE, underfit_weight=0.3)
    made: dict[str, Callable[[], Instance]] = {
        "convex": lambda: make_instance(**scarce),
        "common": lambda: make_instance(**scarce, common_keep=True),
        "levels": lambda: make_instance(**scarce, keep_levels=levels, exclusion_penalty=9.0),
        "blocks": lambda: make_instance(access="rb", block_hz=500.0, **scarce, bound=BoundSpec("perturbation")),
        "curve": lambda: make_instance(**scarce, bound=curve),
        "carriers": lambda: random_ofdma(np.random.default_rng(121)),
        "owners": lambda: random_ofdma(np.random.default_rng(1175)),
    }
    return made[kind](), "convex" if kind in ("convex", "common") else "bnb"


@pytest.mark.parametrize("kind", ["convex", "common", "levels", "blocks", "curve", "carriers", "owners"])
@STEPS
def test_no_extreme_number_proves_what_is_not_true(make_instance: Any, kind: str, step: int) -> None:
    """A claim above a feasible objective, or that nothing is feasible, is refused whatever one field says."""
    instance, method = make_case(make_instance, kind)
    result = solve(instance, method, rel_gap=1e-4)
    data = json.loads(json.dumps(certified(result, 1e-4)[1].to_file()))
    assert accepted(instance, data)
    above = result.objective * (1 + 1e-9)
    count = 0
    for place, bad in extremes(data, np.random.default_rng(0), step=step):
        bad["lower_bound"] = (above, None)[count % 2]
        assert not accepted(instance, bad), place
        count += 1
    assert count >= 150 // step


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
@STEPS
def test_no_extreme_number_proves_a_feasible_cell_infeasible(make_instance: Any, access: str, step: int) -> None:
    """The proof that little spectrum does not do, turned against the same cell with enough of it."""
    poor = make_instance(
        access, latency_s=10.0, freq_max_hz=1.1e9, payload_fixed_bits=4e6, downlink_bps=np.inf, subcarriers=6
    )
    data = json.loads(json.dumps(certified(solve(poor, "bnb"))[1].to_file()))
    assert data["lower_bound"] is None
    assert accepted(poor, data)
    rich = replace(poor, latency_s=100.0, energy_j=np.full(4, 30.0))
    assert solve(rich, "bnb", rel_gap=1e-2).status.has_allocation
    for place, bad in extremes(data, np.random.default_rng(1), step=step):
        assert not accepted(rich, bad), place


@STEPS
def test_no_number_of_a_solution_or_an_instance_ends_in_a_traceback(
    make_instance: Any, by_hand: Any, step: int
) -> None:
    """Every number of a solution, and of an instance, at the ends of the range: a report or an InputError."""
    for access in ("fdma", "rb", "ofdma"):
        instance = make_instance(access)
        data = json.loads(json.dumps(dict_from_solution(by_hand(instance).solution())))
        for place, bad in extremes(data, np.random.default_rng(2), step=step):
            try:
                report = verify(instance, solution_from_dict(bad))
            except InputError:
                continue
            assert not report.ok or any(word in place for word in ("seconds", "lower_bound", "energy_j")), place


def test_sums_of_a_solution_keep_their_sign() -> None:
    assert total([1.7e308, 1.7e308, -1.7e308]) == 1.7e308
    assert total([-1.7e308, -1.7e308]) == -np.inf
    assert total([np.inf, 1.0]) == np.inf
    assert np.isnan(total([np.inf, -np.inf]))


def test_sums_that_leave_the_range_say_nothing() -> None:
    values = np.array([1.7e308, 1.7e308, -1.7e308])
    assert sum_below(values) <= 1.7e308
    assert sum_below(np.array([-1.7e308, -1.7e308])) == -np.inf
    assert sum_below(np.array([1.7e308, 1.7e308])) <= np.finfo(np.float64).max
    for kind in (Intervals, Balls):
        with ctx.workprec(128):
            total = kind.of(values).total()
            assert total.lower() <= 1.7e308 <= total.upper()
            assert kind.of(values[:2]).total().upper() == np.inf


def test_the_reach_of_a_plane_is_rounded_outwards() -> None:
    """Differences of doubles to nearest are too short every other time."""
    rng = np.random.default_rng(0)
    touch, most = rng.uniform(0.0, 1.0, 200), 10.0 ** rng.uniform(-17, 17, 200)
    exact = [
        max(Fraction(t), Fraction(m) - Fraction(t)) for t, m in zip(touch.tolist(), most.tolist(), strict=True)
    ]
    assert all(Fraction(r) >= e for r, e in zip(farthest(touch, most).tolist(), exact, strict=True))
    assert sum(Fraction(r) < e for r, e in zip((most - touch).tolist(), exact, strict=True)) > 20


# -- files ------------------------------------------------------------------------------------------------------


def test_what_has_no_end_is_not_read(make_instance: Any, by_hand: Any, tmp_path: Path) -> None:
    """A pipe that nobody writes to, a device without end, a file that is too large: refused, with the remedy."""
    result = by_hand(make_instance())
    case = save_instance(result.problem.instance, tmp_path / "case.json")
    solution = result.save(tmp_path / "solution.json")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(InputError, match="a regular file"):
            read_json(path)
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(InputError, match=r"more than 64 MB.*--max-mb"):
        verify_files(case, solution, large)
    with pytest.raises(InputError, match=r"more than 0\.001 MB"):
        load_instance(case, max_mb=0.001)
    assert verify_files(case, solution, max_mb=0.01).ok
    refused = CliRunner().invoke(main, ["verify", str(case), str(solution), "--max-mb", "0.001"])
    assert refused.exit_code != 0
    assert "more than 0.001 MB" in str(refused.output) + str(refused.exception)


@pytest.mark.parametrize(
    "text", ["[" * 5000 + "]" * 5000, "1" * 4000, "1" * 5000, "-1e400", '"' + "x" * 10**6 + '"']
)
def test_whatever_stands_in_a_certificate_is_refused_in_few_words(
    make_instance: Any, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "proof.json"
    data = json.loads(json.dumps(certified(solve(make_instance(devices=2), "convex"))[1].to_file()))
    for key in ("lower_bound", "kind", "pieces", "nodes"):
        path.write_text(json.dumps({**data, key: "@"}).replace('"@"', text))
        with pytest.raises(InputError) as caught:
            certificate_from_dict(read_json(path))
        assert len(str(caught.value)) < 5000
