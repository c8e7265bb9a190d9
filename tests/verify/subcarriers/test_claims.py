"""Certificates of OFDMA searches: proved again without the solver, and nothing that is corrupted passes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict, save_certificate
from edgealloc.certificate.prices import seal
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import UnderfitCurve
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.formulation.result import Result
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.solution import verify_files
from tests.solvers.ofdma.oracle import random_ofdma
from tests.verify.spoiling import Change, lose, mutate, put, refused

PUBLIC = [
    "ofdma-2x8-s1", "ofdma-2x8-s2", "ofdma-3x12-s1", "ofdma-3x12-s2", "ofdma-4x16-s1", "ofdma-4x16-s2",
    "ofdma-4x16-device-s1", "ofdma-4x16-device-s2", "ofdma-6x32-s1", "ofdma-6x32-s2", "ofdma-6x32-device-s1",
    "ofdma-6x32-device-s2",
]  # fmt: skip


def by_file(instance: Instance, result: Result, rel_gap: float = 1e-6) -> tuple[Result, dict[str, Any]]:
    """A result with its certificate as a file has it."""
    lowered, certificate = certified(result, rel_gap)
    assert lowered.status is Status.INFEASIBLE or lowered.lower_bound <= certificate.lower_bound
    return lowered, json.loads(json.dumps(certificate.to_file()))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_cases_are_proved(cases: Path, name: str) -> None:
    instance = load_instance(cases / f"{name}.json")
    result = solve(instance, "bnb", rel_gap=1e-6)
    assert result.status is Status.OPTIMAL
    lowered, data = by_file(instance, result)
    assert lowered.status is Status.OPTIMAL
    assert lowered.lower_bound >= result.lower_bound * (1 - 1e-9)
    proof = check_certificate(instance, certificate_from_dict(data))
    assert not proof.faults
    assert lowered.lower_bound <= proof.lower_bound <= result.objective


def check_random(seeds: range, change: Callable[[int], dict[str, Any]] = lambda seed: {}) -> tuple[int, int, int]:
    """Prove random instances of every variant; (feasible ones, infeasible ones, leaves)."""
    feasible, infeasible, leaves = 0, 0, 0
    for seed in seeds:
        instance = random_ofdma(np.random.default_rng(seed), **change(seed))
        result = solve(instance, "bnb", rel_gap=1e-6, time_limit=30.0)
        lowered, data = by_file(instance, result)
        proof = check_certificate(instance, certificate_from_dict(data))
        assert not proof.faults, seed
        leaves += proof.leaves
        if result.status is Status.INFEASIBLE:
            assert proof.lower_bound == math.inf
            infeasible += 1
        else:
            assert lowered.lower_bound >= result.lower_bound - 1e-8 * abs(result.lower_bound)
            assert proof.lower_bound <= result.objective * (1 + 1e-12)
            feasible += 1
    return feasible, infeasible, leaves


@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_random_instances_of_every_variant_are_proved(part: int) -> None:
    """Levels, menus, selection, both poolings, perturbation, devices without heat or work, dead sub-carriers."""
    feasible, infeasible, leaves = check_random(range(25 // part))
    assert feasible >= 15 // part
    assert infeasible >= 2 // part
    assert leaves >= 25 // part


def test_one_common_rate_is_proved() -> None:
    """A tree over intervals of the common rate, with levels, menus and selection too."""
    feasible, _infeasible, leaves = check_random(range(4), lambda _seed: {"common_keep": True})
    assert feasible >= 3
    assert leaves >= 8


def test_keep_rates_are_parted_beside_the_cap_of_a_set() -> None:
    """Parted at the cap itself, a child held a set that no ball could tell from those it excludes."""
    assert check_random(range(1364, 1365))[0] == 1


@pytest.mark.slow
def test_many_random_instances_are_proved() -> None:
    assert sum(check_random(range(1000, 3000))[:2]) == 2000
    assert sum(check_random(range(1000, 1100), lambda _seed: {"common_keep": True})[:2]) == 100


def test_a_search_that_was_stopped_is_proved(cases: Path) -> None:
    """Open boxes are leaves too, with the prices reached so far."""
    instance = load_instance(cases / "ofdma-6x32-s1.json")
    result = solve(instance, "bnb", rel_gap=1e-6, callback=lambda snapshot: snapshot.iteration >= 6)
    assert result.status is Status.FEASIBLE
    lowered, data = by_file(instance, result)
    assert lowered.lower_bound >= result.lower_bound * (1 - 1e-9)
    assert not refused(instance, data)


def test_infeasible_cells_are_proved(cases: Path) -> None:
    """A device that does not fit alone; and devices that all fit alone, but not together."""
    alone = load_instance(cases / "ofdma-4x16-infeasible-spectrum-s1.json")
    together = random_ofdma(np.random.default_rng(4), exclusion_penalty=None)
    for case, device in ((alone, "dev-0002"), (together, None)):
        result = solve(case, "bnb")
        assert result.status is Status.INFEASIBLE
        assert result.diagnosis[0].device == device
        _, data = by_file(case, result)
        assert data["lower_bound"] is None
        assert not refused(case, data)
        roomy = replace(case, latency_s=1e4, energy_j=np.full(case.num_devices, 1e4))
        assert refused(roomy, data)


def test_files_are_judged_together(cases: Path, tmp_path: Path) -> None:
    """An infeasible solution with its certificate is proved so; with a certificate of a bound it is rejected."""
    case = cases / "ofdma-4x16-infeasible-spectrum-s1.json"
    result = solve(case, "bnb")
    result.save(tmp_path / "solution.json")
    save_certificate(certified(result)[1], tmp_path / "proof.json")
    report = verify_files(case, tmp_path / "solution.json", tmp_path / "proof.json")
    assert report.ok
    assert any("infeasibility proved" in note for note in report.notes)
    instance = random_ofdma(np.random.default_rng(2))
    save_instance(instance, tmp_path / "case.json")
    lowered, proof = certified(solve(instance, "bnb"))
    save_certificate(proof, tmp_path / "other.json")
    assert not verify_files(case, tmp_path / "solution.json", tmp_path / "other.json").ok
    lowered.save(tmp_path / "mine.json")
    assert verify_files(tmp_path / "case.json", tmp_path / "mine.json", tmp_path / "other.json").ok


# -- corruption -------------------------------------------------------------------------------------------------


def leaf(number: int, *path: Any, by: Any) -> Change:
    """Change one entry of a leaf, counted among the nodes with prices."""

    def change(data: dict[str, Any]) -> None:
        put(*path, by=by)([node for node in data["nodes"] if "prices" in node][number])

    return change


def every_part(key: str, by: Callable[[list[float]], list[float]]) -> Change:
    """Change one list of all parts."""

    def change(data: dict[str, Any]) -> None:
        for node in data["nodes"]:
            for part in node.get("parts", ()):
                part[key] = by(part[key])

    return change


def owner_cut(data: dict[str, Any]) -> dict[str, Any]:
    """The cut of a node that a sub-carrier's owner sets apart."""
    return next(node["cut"] for node in data["nodes"] if "subcarrier" in node.get("cut", {}))


def option_cut(data: dict[str, Any]) -> dict[str, Any]:
    """The cut of a node that menu rows set apart."""
    return next(node["cut"] for node in data["nodes"] if node.get("cut", {}).get("options"))


PROOF = ("prices", "kept_share", "least", "parts")
CORRUPT: dict[str, Change] = {
    "format": put("format", by="edgealloc-certificate/2"),
    "unknown kind": put("kind", by="faith"),
    "wrong kind": put("kind", by="prices"),
    "kind not a name": put("kind", by=["subcarriers"]),
    "other instance": put("instance", by="another"),
    "bound raised by 1e-7": put("lower_bound", by=lambda x: x * (1 + 1e-7)),
    "bound becomes a claim of infeasibility": put("lower_bound", by=None),
    "bound missing": lose("lower_bound"),
    "bound not a number": put("lower_bound", by="0.2"),
    "unknown key": lambda d: d.update(faith=1),
    "price raised": leaf(0, "prices", 0, by=lambda x: x + 1e-3),
    "prices lowered": leaf(0, "prices", by=lambda p: [0.5 * x for x in p]),
    "price negative": leaf(0, "prices", 0, by=-1e-3),
    "price lost": leaf(0, "prices", by=lambda p: p[1:]),
    "price not finite": leaf(0, "prices", 0, by=math.inf),
    "kept share outside": leaf(0, "kept_share", by=1.5),
    "kept share a truth": leaf(0, "kept_share", by=True),
    "least raised": leaf(0, "least", 0, by=lambda x: x + 1e-3),
    "least lowered": leaf(0, "least", 0, by=lambda x: x - 1e-3),
    "least moved to another device": leaf(0, "least", by=lambda v: [v[0] + 1e-2, v[1] - 1e-2, *v[2:]]),
    "least lost": leaf(0, "least", by=lambda v: v[1:]),
    "parts lost": leaf(0, "parts", by=[]),
    "first part lost": leaf(0, "parts", by=lambda p: p[1:]),
    "last part lost": leaf(0, "parts", by=lambda p: p[:-1]),
    "part of another device": leaf(0, "parts", 0, "device", by=lambda k: k + 1),
    "part of no device": leaf(0, "parts", 0, "device", by=99),
    "part of no option": leaf(0, "parts", 0, "option", by=7),
    "device a fraction": leaf(0, "parts", 0, "device", by=0.5),
    "interval shortened at its end": every_part("keep", lambda e: e[:-1]),
    "interval shortened at its start": every_part("keep", lambda e: [e[0] * (1 + 1e-6), *e[1:]]),
    "edges out of order": every_part("keep", lambda e: e[::-1]),
    "edges lost": every_part("keep", lambda e: []),
    "water level negative": every_part("level_w", lambda w: [-x for x in w]),
    "water level lost": every_part("level_w", lambda w: w[:-1]),
    "slopes negative": every_part("slope", lambda b: [-x for x in b]),
    "exclusion a word": every_part("exclude_w", lambda w: ["dry"]),
    "child lost": lambda d: d["nodes"].pop(),
    "children both own": lambda d: [node["cut"].update(owned=True) for node in d["nodes"][1:3]],
    "no cut": lambda d: d["nodes"][1].pop("cut"),
    "parent after child": put("nodes", 1, "parent", by=3),
    "two roots": put("nodes", 1, "parent", by=-1),
    "no nodes": put("nodes", by=[]),
    "nodes not a list": put("nodes", by={}),
    "leaf without proof": lambda d: [d["nodes"][-1].pop(key) for key in PROOF],
    "leaf without prices": lambda d: d["nodes"][-1].pop("prices"),
    "inner node with a proof": lambda d: d["nodes"][0].update({key: d["nodes"][-1][key] for key in PROOF}),
    "leaf swapped with another": lambda d: swap(d),
}  # fmt: skip


OWNERS: dict[str, Change] = {
    "child about another sub-carrier": lambda d: owner_cut(d).update(subcarrier=owner_cut(d)["subcarrier"] ^ 1),
    "child about another device": lambda d: owner_cut(d).update(device=(owner_cut(d)["device"] + 1) % 2),
    "child about no sub-carrier": lambda d: owner_cut(d).update(subcarrier=99),
    "owned neither true nor false": lambda d: owner_cut(d).update(owned="yes"),
}  # fmt: skip

OPTIONS: dict[str, Change] = {
    "options lost": lambda d: option_cut(d).update(options=[]),
    "keep rates cut off": lambda d: option_cut(d).update(high=0.4),
}


CUTS: dict[str, Change] = {  # a small cell can do without some of these: exclusions close its few sets alone
    "cells lost": every_part("keep", lambda e: [e[0], e[-1]]),
    "water levels raised": every_part("level_w", lambda w: [1.5 * x for x in w]),
    "slopes doubled": every_part("slope", lambda b: [2.0 * x for x in b]),
    "cuts lost": lambda d: (every_part("slope", lambda b: [])(d), every_part("level_w", lambda w: [])(d)),  # type: ignore[dict-item, func-returns-value]
    "exclusions lost": every_part("exclude_w", lambda w: []),
    "exclusions raised": every_part("exclude_w", lambda w: [2.0 * x for x in w]),
}  # fmt: skip


def swap(data: dict[str, Any]) -> None:
    """Give two leaves each other's proof."""
    one, *_, other = (node for node in data["nodes"] if "prices" in node)
    for key in PROOF:
        one[key], other[key] = other[key], one[key]


@pytest.fixture(scope="module")
def honest() -> tuple[Instance, dict[str, Any], float]:
    """An accepted certificate of a tree with menus and selection, and the objective."""
    return accepted(121)


@pytest.fixture(scope="module")
def chosen() -> tuple[Instance, dict[str, Any], float]:
    """The same of a tree over menu rows and keep levels."""
    return accepted(78)


@pytest.fixture(scope="module")
def parted() -> tuple[Instance, dict[str, Any], float]:
    """The same of a tree over the owners of sub-carriers."""
    return accepted(1175, leaves=2)


def accepted(seed: int, leaves: int = 3) -> tuple[Instance, dict[str, Any], float]:
    """Instance, an accepted certificate of a tree of so many leaves or more, and the objective."""
    instance = random_ofdma(np.random.default_rng(seed))
    result = solve(instance, "bnb", rel_gap=1e-9)
    _, data = by_file(instance, result, 1e-9)
    assert sum("prices" in node for node in data["nodes"]) >= leaves
    assert not refused(instance, data)
    return instance, data, result.objective


@pytest.fixture(scope="module")
def wide(cases: Path) -> tuple[Instance, dict[str, Any], float]:
    """An accepted certificate with many sets to a device, and the objective."""
    instance = load_instance(cases / "ofdma-6x32-device-s2.json")
    result = solve(instance, "bnb", rel_gap=1e-6)
    _, data = by_file(instance, result)
    assert not refused(instance, data)
    return instance, data, result.objective


@pytest.mark.parametrize("what", sorted(CORRUPT))
def test_corrupted_certificates_are_refused(honest: Any, what: str) -> None:
    _refuses(honest, CORRUPT[what])


@pytest.mark.parametrize("what", sorted(OPTIONS))
def test_corrupted_choices_are_refused(chosen: Any, what: str) -> None:
    _refuses(chosen, OPTIONS[what])


@pytest.mark.parametrize("what", sorted(OWNERS))
def test_corrupted_owners_are_refused(parted: Any, what: str) -> None:
    _refuses(parted, OWNERS[what])


@pytest.mark.parametrize("what", sorted(CUTS))
def test_corrupted_cuts_are_refused(wide: Any, what: str) -> None:
    _refuses(wide, CUTS[what])


def test_moved_kept_share_is_refused(cases: Path) -> None:
    """Of a pooled stability term: terms of each device's own do without it."""
    instance = load_instance(cases / "ofdma-4x16-s1.json")
    result = solve(instance, "bnb", rel_gap=1e-6)
    _, data = by_file(instance, result)
    assert not refused(instance, data)
    _refuses((instance, data, result.objective), leaf(0, "kept_share", by=lambda q: 0.5 * q + 0.01))


def _refuses(accepted: tuple[Instance, dict[str, Any], float], change: Change) -> None:
    """With the checksum made good again: the mathematics must find it, not the seal."""
    instance, data, _objective = accepted
    bad = copy.deepcopy(data)
    change(bad)
    assert bad != data
    bad["sha256"] = seal(bad)
    assert refused(instance, bad)


@pytest.mark.parametrize("count", [40, pytest.param(120, marks=pytest.mark.slow)])
def test_no_mutant_proves_more_than_the_optimum(honest: Any, wide: Any, count: int) -> None:
    """Numbers changed at random, the claim raised above a feasible objective: no certificate may be accepted."""
    rng = np.random.default_rng(7)
    for trial in range(count):
        instance, data, objective = (honest, wide)[trial % 2]
        bad = copy.deepcopy(data)
        bad["lower_bound"] = objective * (1 + 1e-9)
        mutate(bad, rng, most=7, digits=9, factor=1e3)
        assert refused(instance, bad)


@pytest.mark.parametrize(
    ("field", "factor"), [("bandwidth_hz", 1.02), ("latency_s", 1.02), ("energy_j", 1.02), ("gain", 1.1)]
)
def test_an_easier_cell_is_not_covered(honest: Any, field: str, factor: float) -> None:
    """The certificate of an instance does not prove its bound for one with more resources."""
    instance, data, _objective = honest
    easier = replace(instance, **{field: getattr(instance, field) * factor})
    assert refused(easier, data) or solve(easier, "bnb", rel_gap=1e-9).objective >= data["lower_bound"]


def test_a_certificate_of_another_term_is_refused(wide: Any, cases: Path) -> None:
    """The bound of a formula is not that under a lower curve; that nothing fits is, whatever the curve."""
    knots = UnderfitCurve(np.array([0.01, 0.5, 1.0]), np.array([2.0, 0.5, 0.0]))
    instance, data, _objective = wide
    curve = replace(instance.bound, underfit="curve", underfit_curve=knots)
    assert refused(replace(instance, bound=curve), data)
    case = load_instance(cases / "ofdma-4x16-infeasible-spectrum-s1.json")
    case = replace(case, bound=replace(case.bound, underfit="curve", underfit_curve=knots))
    _, proof = by_file(case, solve(case, "bnb"))
    assert not refused(case, proof)


# -- the parts of the proof -------------------------------------------------------------------------------------


def test_balls_decide_as_intervals_do(honest: Any) -> None:
    """A claim that intervals do not decide goes to balls; a hair above what they prove is refused by both."""
    instance, data, objective = honest
    certificate = certificate_from_dict(data)
    proof = check_certificate(instance, certificate)
    assert proof.in_balls == 0
    above = check_certificate(instance, replace(certificate, lower_bound=proof.lower_bound * (1 + 1e-15)))
    assert above.in_balls > 0
    assert above.lower_bound <= objective
