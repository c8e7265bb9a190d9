"""Certificates: what solvers prove is proved again without them, and nothing that is corrupted passes."""

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
from click.testing import CliRunner
from flint import ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict, save_certificate
from edgealloc.certificate.prices import Certificate, seal
from edgealloc.cli.app import main
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import EdgeallocError, InputError
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.formulation.result import Result
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.enclosures import Balls, Intervals
from edgealloc.verify.solution import verify_files
from tests.solvers.fdma.random_instances import random_fdma
from tests.solvers.separable.test_brute_force import random_instance

CONVEX = [
    "fdma-2-s1", "fdma-5-s2", "fdma-10-s1", "fdma-10-ample-s1", "fdma-20-s2", "fdma-20-device-s1",
    "fdma-20-head-downlink-s1", "fdma-100-s1", "fdma-1000-s1",
]  # fmt: skip
SEARCHED = [
    "fdma-20-levels-s1", "fdma-20-levels-s2", "fdma-20-perturbation-s2", "rb-10-s1", "rb-10-s2", "fdma-10-s1",
]  # fmt: skip
Change = Callable[[dict[str, Any]], None]


def tight(make: Callable[..., Instance], **changes: Any) -> Instance:
    """An instance whose spectrum, energy and power bind."""
    scarce = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
    return make(devices=4, **{**scarce, **changes})


def proved(instance: Instance, rel_gap: float = 1e-9) -> tuple[Result, Certificate]:
    """The optimum with its certificate, by way of its file."""
    result = solve(instance, "convex", rel_gap=rel_gap)
    assert result.status is Status.OPTIMAL
    lowered, certificate = certified(result, rel_gap)
    assert result.lower_bound - 1e-11 * abs(result.lower_bound) <= lowered.lower_bound <= result.lower_bound
    return lowered, certificate_from_dict(json.loads(json.dumps(certificate.to_file())))


@pytest.mark.parametrize("name", CONVEX)
def test_public_cases_are_proved(cases: Path, name: str) -> None:
    instance = load_instance(cases / f"{name}.json")
    result, certificate = proved(instance)
    proof = check_certificate(instance, certificate)
    assert not proof.faults
    assert result.lower_bound <= proof.lower_bound <= result.objective


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("scarce", [False, True])
def test_every_form_of_the_convex_method(make_instance: Any, pooling: Any, common: bool, scarce: bool) -> None:
    changes = {} if scarce else {"bandwidth_hz": 1e9}
    instance = tight(make_instance, bound=BoundSpec(pooling=pooling), common_keep=common, **changes)
    result, certificate = proved(instance)
    assert certificate.kind == ("common-rate" if common else "prices")
    assert check_certificate(instance, certificate).lower_bound <= result.objective


def test_random_instances_are_proved() -> None:
    """Budgets over orders of magnitude, every limit binding somewhere: no proof exceeds a feasible objective."""
    count, limits = 0, set[int]()
    for seed in range(295):  # 290 is the first whose power and energy bind together
        instance = random_fdma(np.random.default_rng(seed), common_keep=seed % 3 == 0)
        result = solve(instance, "convex", rel_gap=1e-9)
        if not result.status.has_allocation:
            continue
        lowered, certificate = certified(result, 1e-9)
        proof = check_certificate(instance, certificate)
        assert not proof.faults
        assert lowered.lower_bound >= result.lower_bound * (1 - 1e-10)
        assert proof.lower_bound <= result.objective
        count += 1
        limits |= set(certificate.pieces.line.limit.tolist())
    assert count >= 30
    assert limits == {0, 1, 2, 3}


@pytest.mark.parametrize("name", SEARCHED)
def test_searches_of_public_cases_are_proved(cases: Path, name: str) -> None:
    instance = load_instance(cases / f"{name}.json")
    result = solve(instance, "bnb", rel_gap=1e-6)
    lowered, certificate = certified(result, 1e-6)
    assert lowered.lower_bound == result.lower_bound
    again = certificate_from_dict(json.loads(json.dumps(certificate.to_file())))
    proof = check_certificate(instance, again)
    assert not proof.faults
    assert result.lower_bound <= proof.lower_bound <= result.objective


@pytest.mark.parametrize("common", [False, True])
def test_searches_of_every_variant_are_proved(common: bool) -> None:
    """Levels, menus, selection, blocks, perturbation and curves, mixed at random."""
    count, curves = 0, 0
    for seed in range(45):
        instance = random_instance(seed, common=common)
        result = solve(instance, "bnb", rel_gap=1e-6, time_limit=20.0)
        if not result.status.has_allocation:
            continue
        lowered, certificate = certified(result, 1e-6)
        proof = check_certificate(instance, certificate)
        assert not proof.faults
        assert lowered.lower_bound >= result.lower_bound * (1 - 1e-9)
        assert proof.lower_bound <= result.objective * (1 + 1e-12)
        count += 1
        curves += instance.bound.underfit == "curve"
    assert count >= 25
    assert curves >= 12


def test_a_hopeful_bound_is_not_proved(make_instance: Any) -> None:
    """A bound above the optimum by a tenth of the gap has no certificate."""
    instance = tight(make_instance)
    result, certificate = proved(instance)
    hopeful = replace(certificate, lower_bound=result.objective * (1 + 1e-12))
    assert check_certificate(instance, hopeful).faults


def test_what_has_no_certificate_is_said_so(make_instance: Any) -> None:
    for method in ("psca", "baseline:equal"):
        with pytest.raises(EdgeallocError, match=r"no certificate|no lower bound"):
            certified(solve(tight(make_instance), method))


def test_infeasible_results_are_proved(make_instance: Any, cases: Path) -> None:
    """A single device, too little spectrum, whole blocks, one common rate: by the file, which claims no bound."""
    scarce: dict[str, Any] = {"bandwidth_hz": 2e3, "keep_min": 0.3, "devices": 4}
    instances = [
        load_instance(cases / "fdma-10-infeasible-deadline-s1.json"), make_instance(latency_s=3.0),
        make_instance(**scarce), make_instance(**scarce, common_keep=True),
        make_instance(**scarce, access="rb", block_hz=500.0),
    ]  # fmt: skip
    for instance in instances:
        result = solve(instance)
        assert result.status is Status.INFEASIBLE
        data = json.loads(json.dumps(certified(result)[1].to_file()))
        assert data["lower_bound"] is None
        assert not refused(instance, data)
        roomy = replace(instance, bandwidth_hz=1e12, latency_s=1e6, energy_j=np.full(instance.num_devices, 1e6))
        assert refused(roomy, data)


# -- corruption -------------------------------------------------------------------------------------------------


def put(*path: Any, by: Any) -> Change:
    """Change one entry; a function is applied to the old value."""

    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = by(at[path[-1]]) if callable(by) else by

    return change


def lose(*path: Any) -> Change:
    """Remove one entry."""

    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def lose_device(data: dict[str, Any]) -> None:
    pieces = data["pieces"]
    for part in (pieces, pieces["line"]):
        for values in part.values():
            if isinstance(values, list):
                del values[0]


PRICES: dict[str, Change] = {
    "format": put("format", by="edgealloc-certificate/2"),
    "unknown kind": put("kind", by="faith"),
    "wrong kind": put("kind", by="common-rate"),
    "other instance": put("instance", by="another"),
    "bound raised by 1e-9": put("lower_bound", by=lambda x: x * (1 + 1e-9)),
    "bound not a number": put("lower_bound", by="0.4"),
    "bound missing": lose("lower_bound"),
    "price raised": put("nodes", 0, "price_per_hz", by=lambda x: 1.01 * x),
    "price lowered": put("nodes", 0, "price_per_hz", by=lambda x: 0.99 * x),
    "price negative": put("nodes", 0, "price_per_hz", by=lambda x: -x),
    "price missing": lose("nodes", 0, "price_per_hz"),
    "kept share moved": put("nodes", 0, "kept_share", by=lambda x: 1.01 * x),
    "kept share above 1": put("nodes", 0, "kept_share", by=1.5),
    "no tree": put("nodes", by=[]),
    "root with a parent": put("nodes", 0, "parent", by=0),
    "leaf without proof": put("nodes", by=lambda n: [{"parent": -1}]),
    "a device lost": lose_device,
    "device number out of range": put("pieces", "device", 0, by=4),
    "device twice": put("pieces", "device", 0, by=1),
    "option that does not exist": put("pieces", "option", 0, by=1),
    "left out without selection": put("pieces", "option", 0, by=-1),
    "left end moved in": put("pieces", "left", 1, by=lambda x: math.nextafter(x, 1.0) + 1e-15),
    "right end moved in": put("pieces", "right", 1, by=lambda x: x - 1e-15),
    "ends swapped": lambda d: d["pieces"].update(left=d["pieces"]["right"], right=d["pieces"]["left"]),
    "touch moved": put("pieces", "line", "touch", 0, by=lambda x: 0.99 * x),
    "touch zero": put("pieces", "line", "touch", 0, by=0.0),
    "touch negative": put("pieces", "line", "touch", 0, by=-0.3),
    "efficiency moved": put("pieces", "line", "efficiency", 0, by=lambda x: 1.01 * x),
    "efficiency huge": put("pieces", "line", "efficiency", 0, by=1e6),
    "efficiency negative": put("pieces", "line", "efficiency", 0, by=lambda x: -x),
    "plane removed": put("pieces", "line", "efficiency", 0, by=0.0),
    "mix above 1": put("pieces", "line", "mix", 0, by=1.5),
    "mix below 0": put("pieces", "line", "mix", 0, by=-0.5),
    "mix moved": put("pieces", "line", "mix", 0, by=0.3),
    "limit unknown": put("pieces", "line", "limit", 0, by=7),
    "multiplier negative": lambda d: d["pieces"]["line"].update(limit=[1] * 4, multiplier=[-1e3] * 4),
    "multiplier huge": lambda d: d["pieces"]["line"].update(limit=[1] * 4, multiplier=[1e9] * 4),
    "column missing": lose("pieces", "line", "mix"),
    "column too short": lose("pieces", "left", 0),
    "column with text": put("pieces", "left", 0, by="0.05"),
    "column with a truth value": put("pieces", "left", 0, by=True),
    "blocks where there are none": lambda d: d["pieces"].update(start=d["pieces"]["line"]),
    "round without its piece": put("rounds", by=[{"price_per_hz": 1.0, "kept_share": 0.1, "pieces": [9]}]),
    "round that drops a device": put("rounds", by=[{"price_per_hz": 0.0, "kept_share": 0.1, "pieces": [0]}]),
    "unknown key": put("note", by="trust me"),
}  # fmt: skip

COMMON: dict[str, Change] = {
    "cap lowered": put("cap", by=lambda x: 0.999 * x),
    "cap raised": put("cap", by=lambda x: 1.001 * x),
    "cap removed": put("cap", by=None),
    "touch moved": put("touch", by=lambda x: 0.9 * x),
    "touch out of range": put("touch", by=2.0),
    "touch missing": lose("touch"),
    "a device lost": lose_device,
    "device twice": put("pieces", "device", 0, by=1),
    "plane begins beyond the cap": put("pieces", "left", 0, by=1.0),
    "efficiency moved": put("pieces", "line", "efficiency", 0, by=lambda x: 1.01 * x),
    "bound raised by 1e-9": put("lower_bound", by=lambda x: x * (1 + 1e-9)),
    "called prices": put("kind", by="prices"),
}


def leaf(data: dict[str, Any]) -> dict[str, Any]:
    """The leaf whose price per Hz is largest."""
    return max((n for n in data["nodes"] if "price_per_hz" in n), key=lambda n: float(n["price_per_hz"]))


def last_with(key: str, data: dict[str, Any]) -> dict[str, Any]:
    """The last cut that restricts keep rates, or options."""
    cuts = [n["cut"] for n in data["nodes"] if "cut" in n]
    wanted: list[dict[str, Any]] = [c for c in cuts if (c["options"] is not None) == (key == "options")]
    return wanted[-1]


def halved_tree(data: dict[str, Any]) -> None:
    """Cut off the last leaf: its sibling no longer covers the parent."""
    del data["nodes"][-1]


def leaf_without_prices(data: dict[str, Any]) -> None:
    """Claims that nothing fits where something does."""
    found = leaf(data)
    del found["price_per_hz"], found["kept_share"]


def raised_prices(data: dict[str, Any]) -> None:
    for node in data["nodes"]:
        if "price_per_hz" in node:
            node["price_per_hz"] = 1e-2


SEARCH: dict[str, Change] = {
    "bound raised": put("lower_bound", by=lambda x: x * (1 + 1e-5)),
    "a leaf lost": halved_tree,
    "two leaves of different parents": lambda d: d["nodes"][-1].update(parent=0),
    "parent after child": lambda d: d["nodes"][1].update(parent=2),
    "cut of another device": lambda d: d["nodes"][-1]["cut"].update(
        device=(d["nodes"][-1]["cut"]["device"] + 1) % 6
    ),
    "device that does not exist": lambda d: d["nodes"][-1]["cut"].update(device=60),
    "cut raised": lambda d: last_with("keep", d).update(low=last_with("keep", d)["low"] + 0.02),
    "cut lowered": lambda d: last_with("keep", d).update(high=0.5 * last_with("keep", d)["high"]),
    "prices raised": raised_prices,
    "leaf price zero": lambda d: leaf(d).update(price_per_hz=0.0),
    "leaf kept share moved": lambda d: leaf(d).update(kept_share=min(1.0, 3 * leaf(d)["kept_share"])),
    "leaf price lost": leaf_without_prices,
    "prices at an inner node": lambda d: d["nodes"][0].update(price_per_hz=1e-6, kept_share=0.1),
    "options lost": lambda d: d["nodes"][-1]["cut"].update(options=[]),
    "everything dropped": lambda d: d["rounds"].append(
        {"price_per_hz": 0.0, "kept_share": 0.1, "pieces": list(range(len(d["pieces"]["left"])))}
    ),
    "a level lost": lambda d: d["pieces"]["left"].__setitem__(0, d["pieces"]["right"][0] + 1e-9),
    "start efficiencies scaled": lambda d: d["pieces"]["start"].update(
        efficiency=[0.5 * v for v in d["pieces"]["start"]["efficiency"]]
    ),
    "start planes lost": put("pieces", "start", by=None),
}  # fmt: skip


def refused(instance: Instance, data: dict[str, Any]) -> bool:
    """Whether the checker rejects a certificate object, by form or by proof."""
    try:
        return bool(check_certificate(instance, certificate_from_dict(data)).faults)
    except InputError:
        return True


@pytest.fixture(scope="module")
def honest(make_instance: Any) -> dict[str, tuple[Instance, dict[str, Any]]]:
    """An accepted certificate of each kind, as JSON objects."""
    found = {}
    for kind, common in (("prices", False), ("common-rate", True)):
        instance = tight(make_instance, common_keep=common)
        data = json.loads(json.dumps(proved(instance)[1].to_file()))
        assert not refused(instance, data)
        found[kind] = (instance, data)
    return found


@pytest.mark.parametrize("what", sorted(PRICES))
def test_corrupted_prices_are_refused(honest: Any, what: str) -> None:
    _refuses(honest["prices"], PRICES[what])


@pytest.mark.parametrize("what", sorted(COMMON))
def test_corrupted_common_rates_are_refused(honest: Any, what: str) -> None:
    _refuses(honest["common-rate"], COMMON[what])


@pytest.fixture(scope="module")
def searched() -> tuple[Instance, dict[str, Any]]:
    """An accepted certificate of a search with a tree: scarce blocks and a perturbation term."""
    rng = np.random.default_rng(0)
    instance = random_fdma(
        rng, 6, bound=BoundSpec(underfit="perturbation", underfit_weight=0.5), access="rb", block_hz=1e3,
        bandwidth_hz=1.2e4, gain=rng.uniform(1e-13, 1e-11, 6), latency_s=20.0, energy_j=20.0, cycles_fixed=1e9,
        payload_lora_bits=1e6, cycles_lora=1e8, capacitance=1e-28, freq_min_hz=1e8, freq_max_hz=1e9,
    )  # fmt: skip
    result = solve(instance, "bnb", rel_gap=1e-7)
    data = json.loads(json.dumps(certified(result, 1e-7)[1].to_file()))
    assert len(data["nodes"]) >= 7
    assert not refused(instance, data)
    return instance, data


@pytest.mark.parametrize("what", sorted(SEARCH))
def test_corrupted_searches_are_refused(searched: Any, what: str) -> None:
    _refuses(searched, SEARCH[what])


def _refuses(accepted: tuple[Instance, dict[str, Any]], change: Change) -> None:
    """With the checksum made good again: the mathematics must find it, not the seal."""
    instance, data = accepted
    bad = copy.deepcopy(data)
    change(bad)
    assert bad != data
    bad["sha256"] = seal(bad)
    assert refused(instance, bad)


def numbers_of(at: Any) -> list[tuple[Any, Any]]:
    """Every number of an object, as (container, key)."""
    found: list[tuple[Any, Any]] = []
    for key, value in at.items() if isinstance(at, dict) else enumerate(at):
        if isinstance(value, dict | list):
            found += numbers_of(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((at, key))
    return found


def mutate(
    data: dict[str, Any], rng: np.random.Generator, most: int = 5, digits: int = 12, factor: float = 1e6
) -> None:
    """Change up to ``most`` numbers of a certificate's proof at random, and make the checksum good again.

    Integers by up to 2; others by sign, by a share of 10^-``digits`` to 1, or by ``factor``.
    """
    numbers = [pair for key in ("pieces", "nodes") for pair in numbers_of(data.get(key, {}))]
    for i in rng.integers(len(numbers), size=int(rng.integers(1, most + 1))).tolist():
        at, key = numbers[i]
        if isinstance(at[key], int):
            at[key] += int(rng.integers(-2, 3))
        else:
            at[key] *= float(rng.choice([-1.0, 0.0, 1 + rng.normal() * 10.0 ** rng.integers(-digits, 1), factor]))
    data["sha256"] = seal(data)


def test_no_mutant_proves_more_than_the_optimum(honest: Any, searched: Any) -> None:
    """Numbers changed at random, the claim raised above a feasible objective: no certificate may be accepted."""
    rng = np.random.default_rng(5)
    accepted = [(*pair, solve(pair[0], rel_gap=1e-9).objective) for pair in (*honest.values(), searched)]
    for trial in range(600):
        instance, data, objective = accepted[trial % len(accepted)]
        bad = copy.deepcopy(data)
        bad["lower_bound"] = objective * (1 + 1e-9)
        mutate(bad, rng)
        assert refused(instance, bad)


def test_any_flipped_digit_breaks_the_seal(honest: Any) -> None:
    instance, data = honest["prices"]
    text = json.dumps(data)
    places = [i for i, c in enumerate(text) if c.isdigit()]
    for i in places[:: max(1, len(places) // 200)]:
        flipped = text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :]
        try:
            changed = json.loads(flipped)
        except ValueError:
            continue
        assert changed == data or refused(instance, changed), flipped[max(0, i - 20) : i + 20]


@pytest.mark.parametrize(
    ("field", "factor"),
    [("bandwidth_hz", 1.01), ("latency_s", 1.01), ("energy_j", 1.01), ("gain", 1.05), ("capacitance", 0.9)],
)
def test_an_easier_instance_is_not_covered(honest: Any, field: str, factor: float) -> None:
    """The certificate of an instance does not prove its bound for one with more resources."""
    instance, data = honest["prices"]
    easier = replace(instance, **{field: getattr(instance, field) * factor})
    assert refused(easier, data) or solve(easier, "convex", rel_gap=1e-9).objective >= data["lower_bound"]


# -- numbers ----------------------------------------------------------------------------------------------------

reals = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(reals, reals), min_size=1, max_size=5))
def test_intervals_hold_what_balls_say(pairs: list[tuple[float, float]]) -> None:
    """Every operation: the ball, which is narrower at 300 bits, lies inside the interval."""
    x, y = np.array(pairs).T
    with ctx.workprec(300), np.errstate(all="ignore"):
        results = []
        for kind in (Intervals, Balls):
            a, b = kind.of(x), kind.of(y)
            c = a * a + 1.0
            arithmetic = [a + b, a - b, a * b, a / b, -a, 2.0 - a, 1.0 / a, a.total()]
            results.append([*arithmetic, c.log(), c.sqrt(), (a / 1e5).exp(), (a / 1e5).expm1()])
        for interval, ball in zip(*results, strict=True):
            assert np.all(interval.lower() <= ball.upper())
            assert np.all(interval.upper() >= ball.lower())
            middle = np.array([float(v.mid()) for v in np.ravel(ball.values)])
            known = np.isfinite(middle) & np.isfinite(ball.lower()).ravel()
            assert np.all(np.ravel(interval.lower())[known] <= middle[known])
            assert np.all(np.ravel(interval.upper())[known] >= middle[known])


def test_what_is_not_known_is_infinite() -> None:
    for kind in (Intervals, Balls):
        with np.errstate(all="ignore"):
            values = kind.of([1.0, -1.0, 0.0])
            for unknown in ((values - 1.0).log().take([0, 1]), 1.0 / (values * 0.0), values.log().take([1, 2])):
                assert np.all(np.isneginf(unknown.lower()))
                assert np.all(np.isposinf(unknown.upper()))


# -- command line -----------------------------------------------------------------------------------------------


def test_command_line(make_instance: Any, tmp_path: Path) -> None:
    case, solution, proof = (tmp_path / f"{name}.json" for name in ("case", "solution", "proof"))
    save_instance(tight(make_instance), case)
    runner = CliRunner()
    made = runner.invoke(main, ["solve", str(case), "--out", str(solution), "--certificate", str(proof)])
    assert made.exit_code == 0, made.output
    fine = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert fine.exit_code == 0
    assert "lower_bound proved" in fine.output
    data = json.loads(proof.read_text())
    data["nodes"][0]["price_per_hz"] *= 1.1
    proof.write_text(json.dumps(data))
    damaged = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert damaged.exit_code == 1
    assert "sha256" in damaged.output
    data["sha256"] = seal(data)
    proof.write_text(json.dumps(data))
    forged = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert forged.exit_code == 1
    assert "nodes[0]" in forged.output


def test_a_solution_may_not_claim_more_than_its_certificate(make_instance: Any, tmp_path: Path) -> None:
    instance = tight(make_instance)
    result, certificate = proved(instance)
    case, solution, proof = (tmp_path / f"{name}.json" for name in ("case", "solution", "proof"))
    save_instance(instance, case)
    result.save(solution)
    weaker = replace(certificate, lower_bound=certificate.lower_bound * (1 - 1e-6))
    save_certificate(weaker, proof)
    report = verify_files(case, solution, proof)
    assert [fault.field for fault in report.faults] == ["lower_bound"]
    save_certificate(certificate, proof)
    assert verify_files(case, solution, proof).ok
