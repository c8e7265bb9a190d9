"""Files and certificates of weighted sums and of needed rounds: accepted as written, refused when forged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import Instance, LearningSpec, RunPlan, SpectrumCap, Status, plan_run
from edgealloc.certificate.run import CurveTerms, NeededTerms, RunCertificate, RunPiece, load_run_certificate
from edgealloc.files.run import load_run
from edgealloc.runs import NeededRounds
from edgealloc.runs.asked import Weights
from edgealloc.runs.proof import staircase
from edgealloc.verify.run import verify_run
from edgealloc.verify.training.staircase import beyond_walls
from tests.conftest import small_instance

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
NEEDED = NeededRounds(1.0, 2.0)
WEIGHTS = (1.0, 100.0)
GAP = 0.5
Proved = tuple[Instance, RunPlan, RunCertificate]
KINDS: dict[str, dict[str, Any]] = {
    "weighted": {"minimise": "weighted", "weights": WEIGHTS, "curve": CURVE, "target": 0.6, "rounds": (1, 2)},
    "needed time": {"minimise": "time", "curve": NEEDED, "rounds": (1, 20)},
    "needed energy": {"minimise": "energy", "curve": NEEDED, "rounds": (1, 20)},
    "needed weighted": {"minimise": "weighted", "weights": WEIGHTS, "curve": NEEDED, "rounds": (1, 9)},
}


@cache
def proved(kind: str) -> Proved:
    cell = small_instance("fdma", 2)
    plan = plan_run(cell, time_s=120.0, energy_j=20.0, rel_gap=GAP, **KINDS[kind])
    assert plan.status is Status.OPTIMAL
    plan, certificate = plan.certified()
    assert plan.status is Status.OPTIMAL  # though its bound may be a hair lower
    return cell, plan, certificate


def faults_of(cell: Instance, plan: RunPlan, certificate: RunCertificate, **lies: Any) -> str:
    claims = replace(plan.claims(), **lies)
    return "\n".join(map(str, verify_run(cell, claims, certificate, rel_gap=GAP).faults))


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_accepted_and_read_back(kind: str, tmp_path: Path) -> None:
    cell, plan, certificate = proved(kind)
    read = load_run(plan.save(tmp_path / "plan.json"))
    assert (read.learning, read.weights) == (plan.run.stated, KINDS[kind].get("weights"))
    again = load_run_certificate(certificate.save(tmp_path / "proof.json"))
    report = verify_run(cell, read, again, rel_gap=GAP)
    assert report.ok, str(report)
    assert any("proved lower_bound of the" in note for note in report.notes)
    assert bool(certificate.walls) is (plan.minimise == "weighted")
    if plan.minimise != "weighted":
        assert "weights" not in json.loads((tmp_path / "plan.json").read_text())


@pytest.mark.parametrize("access", ["rb", "ofdma"])
def test_needed_rounds_are_proved_with_other_access_schemes(access: Any) -> None:
    cell = small_instance(access, 2, 4)
    plan, certificate = plan_run(cell, curve=NEEDED, minimise="time", rounds=(1, 9), rel_gap=GAP).certified()
    assert verify_run(cell, plan.claims(), certificate, rel_gap=GAP).ok


@pytest.mark.parametrize("access", ["rb", pytest.param("ofdma", marks=pytest.mark.slow)])
def test_a_weighted_sum_is_proved_with_other_access_schemes(access: Any) -> None:
    """By walls whose single rounds are resource blocks and sub-carriers, for a curve and for needed rounds."""
    cell = small_instance(access, 2, 4)
    for kind in ("weighted", "needed weighted"):
        plan = plan_run(cell, time_s=120.0, energy_j=20.0, rel_gap=GAP, **KINDS[kind])
        assert plan.status is Status.OPTIMAL
        plan, certificate = plan.certified()
        assert certificate.walls
        assert verify_run(cell, plan.claims(), certificate, rel_gap=GAP).ok
        for i in range(len(certificate.walls)):
            holed = replace(certificate, walls=certificate.walls[:i] + certificate.walls[i + 1 :])
            assert "the least that walls leave" in faults_of(cell, plan, holed)
        wall = certificate.walls[0]
        wide = replace(certificate, walls=(replace(wall, share=1.5 * wall.share), *certificate.walls[1:]))
        assert "].energy_j[" in faults_of(cell, plan, wide)
        piece = wall.pieces[0]
        lie = replace(piece, certificate=replace(piece.certificate, lower_bound=10.0))
        forged = replace(
            certificate, walls=(replace(wall, pieces=(lie, *wall.pieces[1:])), *certificate.walls[1:])
        )
        assert "walls[0].pieces[0]" in faults_of(cell, plan, forged)


def with_piece(certificate: RunCertificate, change: Callable[[RunPiece], RunPiece]) -> RunCertificate:
    """The certificate with its first interval changed."""
    if not certificate.walls:
        return replace(certificate, pieces=(change(certificate.pieces[0]), *certificate.pieces[1:]))
    wall = certificate.walls[0]
    wall = replace(wall, pieces=(change(wall.pieces[0]), *wall.pieces[1:]))
    return replace(certificate, walls=(wall, *certificate.walls[1:]))


def raised(key: str, share: float = 1e-9) -> Callable[[RunPiece], RunPiece]:
    def change(piece: RunPiece) -> RunPiece:
        terms: Any = piece.terms
        return replace(piece, terms=replace(terms, **{key: getattr(terms, key) * (1.0 + share)}))

    return change


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_interval_is_refused(kind: str) -> None:
    cell, plan, certificate = proved(kind)
    other: Any = NeededTerms(1.0, 0.0) if kind == "weighted" else CurveTerms(0.1, 1.0, 0.0, 0.0)
    keys = ("half", "steepness", "lipschitz") if kind == "weighted" else ("underfit_weight", "loss_range")
    inner = certificate.walls[-1].pieces[-1] if certificate.walls else certificate.pieces[-1]
    forgeries: dict[str, Callable[[RunPiece], RunPiece]] = {
        "latency_s": lambda piece: replace(piece, latency_s=piece.latency_s * (1.0 - 1e-9)),
        "energy_j[1]": lambda piece: replace(piece, energy_j=piece.energy_j * np.array([1.0, 1.0 - 1e-9])),
        "another R": lambda piece: replace(piece, certificate=inner.certificate),
        "wider": lambda piece: replace(piece, last=piece.last + 1),
        "other terms": lambda piece: replace(piece, terms=other),
        "a higher bound": lambda piece: replace(
            piece, certificate=replace(piece.certificate, lower_bound=piece.certificate.lower_bound * 1.5)
        ),
        **{key: raised(key) for key in keys},
    }
    for words, change in forgeries.items():
        forged = with_piece(certificate, change)
        first = (certificate.walls[0] if certificate.walls else certificate).pieces[0]
        if words == "a higher bound" and math.isinf(first.certificate.lower_bound):
            continue
        told = faults_of(cell, plan, forged)
        assert "pieces[0]" in told, f"{words}: {told}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_refused(kind: str) -> None:
    cell, plan, certificate = proved(kind)
    if not certificate.walls:
        for i in range(len(certificate.pieces)):
            rest = certificate.pieces[:i] + certificate.pieces[i + 1 :]
            assert "intervals that cover" in faults_of(cell, plan, replace(certificate, pieces=rest))
        return
    for i, wall in enumerate(certificate.walls):
        others = certificate.walls[:i] + certificate.walls[i + 1 :]
        assert "the least that walls leave" in faults_of(cell, plan, replace(certificate, walls=others))
        for j in range(len(wall.pieces)):
            holed = replace(wall, pieces=wall.pieces[:j] + wall.pieces[j + 1 :])
            told = faults_of(cell, plan, replace(certificate, walls=(holed, *others)))
            assert "intervals that cover" in told


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_above_what_is_proved_is_refused(kind: str) -> None:
    cell, plan, certificate = proved(kind)
    higher = 0.5 * (plan.lower_bound + plan.objective)
    gap = (plan.objective - higher) / plan.objective
    told = faults_of(cell, plan, certificate, lower_bound=higher, rel_gap=gap)
    assert "certificate" in told
    if certificate.walls:
        both = replace(certificate, lower_bound=higher)
        assert "the least that walls leave" in faults_of(cell, plan, both, lower_bound=higher, rel_gap=gap)
        wide = replace(certificate.walls[0], time_s=certificate.walls[0].time_s * 1.5)
        forged = replace(certificate, walls=(wide, *certificate.walls[1:]))
        told = faults_of(cell, plan, forged)
        assert "walls[0].pieces" in told
        assert "].latency_s" in told
        wide = replace(certificate.walls[0], share=certificate.walls[0].share * 1.5)
        forged = replace(certificate, walls=(wide, *certificate.walls[1:]))
        told = faults_of(cell, plan, forged)
        assert "walls[0].pieces" in told
        assert "].energy_j[" in told
        lower = replace(certificate.walls[0], lower_bound=plan.target)
        forged = replace(certificate, walls=(lower, *certificate.walls[1:]))
        assert "above the target" in faults_of(cell, plan, forged)
        none = replace(certificate.walls[0], share=math.nan)
        assert "above 0" in faults_of(cell, plan, replace(certificate, walls=(none,)))
    above = plan.objective * 1.01
    assert "at most the objective" in faults_of(cell, plan, certificate, lower_bound=above, rel_gap=0.0)


def test_claims_of_weights_and_needs_are_recomputed() -> None:
    cell, plan, certificate = proved("weighted")
    for words, lies in {
        "the weighted sum of what is used": {"objective": plan.lower_bound, "rel_gap": 0.0},
        "plan: weights": {"weights": None},
        "plan: weights ": {"weights": (0.0, 1.0)},
        "plan: energy_j": {"energy_j": None},
        "the end": {"time_s": None, "caps": False},
    }.items():
        told = faults_of(cell, plan, certificate, **lies)
        assert (words.strip() if words != "the end" else "plan: time_s") in told, f"{words}: {told}"
    cell, plan, certificate = proved("needed time")
    many = replace(certificate, walls=proved("needed weighted")[2].walls)
    for words, lies in {
        "plan: target": {"target": 2.0},
        "plan: loss": {"loss": 0.9},
        "plan: weights": {"weights": WEIGHTS},
        "as recomputed": {"rounds": plan.rounds - 1},
        "per_keep": {"learning": NeededRounds(1.0, 0.0)},
        "walls": {},
    }.items():
        forged = many if words == "walls" else certificate
        assert words in faults_of(cell, plan, forged, **lies), words


def test_no_run_at_all_is_proved_too() -> None:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {"energy_j": 20.0, "rounds": (1, 3), "rel_gap": GAP}
    plan = plan_run(cell, curve=CURVE, target=0.1, minimise="weighted", weights=WEIGHTS, **common)
    assert plan.status is Status.INFEASIBLE
    plan, certificate = plan.certified()
    assert certificate.lower_bound == math.inf
    assert verify_run(cell, plan.claims(), certificate).ok
    told = faults_of(cell, plan, certificate, time_s=60.0)  # less than the walls: still none
    assert not told
    short = replace(certificate.walls[0], time_s=40.0)
    assert "the least that walls leave" in faults_of(cell, plan, replace(certificate, walls=(short,)))
    none, proof = plan_run(cell, curve=NeededRounds(1e6, 1.0), minimise="time", rounds=(1, 20)).certified()
    report = verify_run(cell, none.claims(), proof)
    assert report.ok
    assert any("that no run is feasible and reaches the target" in note for note in report.notes)


def test_a_weighted_sum_under_constraints_is_proved_under_these() -> None:
    cell = small_instance("fdma", 2)
    rows = (SpectrumCap(0.01 * cell.bandwidth_hz, cell.device_names, "tenant"),)
    plan, certificate = plan_run(
        cell, time_s=120.0, energy_j=20.0, rel_gap=GAP, constraints=rows, **KINDS["weighted"]
    ).certified()
    assert verify_run(cell, plan.claims(), certificate, rel_gap=GAP).ok
    claims = plan.claims()
    assert claims.round is not None
    told = faults_of(cell, plan, certificate, round=replace(claims.round, constraints=()))
    assert "walls[0].pieces[0]: constraints" in told


@pytest.mark.parametrize("seed", range(5))
def test_corners_are_the_least_of_all_pairs_beyond_walls(seed: int) -> None:
    """Against a fine grid of pairs, and the writer against the checker."""
    rng = np.random.default_rng(seed)
    walls = [(float(t), float(s)) for t, s in rng.uniform(0.05, 0.95, (int(rng.integers(0, 6)), 2))]
    walls += [(1.0, 0.3)] * bool(seed % 2) + [(0.2, 1.0)] * (seed > 2)
    weights = tuple(rng.uniform(0.5, 2.0, 2).tolist())
    found = beyond_walls(walls, weights, Fraction(1))
    t, s = np.meshgrid(np.linspace(0.0, 1.0, 401), np.linspace(0.0, 1.0, 401))
    out = np.ones(t.shape, dtype=bool)
    for time, share in walls:
        out &= (t > time) | (s > share)
    best = (weights[0] * t + weights[1] * s)[out].min()
    assert found is not None
    assert float(found) <= best <= float(found) + 0.01 * sum(weights)
    assert staircase(walls, Weights(*weights), 1.0) == pytest.approx(float(found), rel=1e-15)
    assert staircase(walls, Weights(*weights), 1.0) <= found
    assert beyond_walls([*walls, (1.0, 1.0)], weights, Fraction(1)) is None


def test_the_command_line_plans_and_verifies_them(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edgealloc.cli.app import main
    from edgealloc.files.instance import save_instance

    case = save_instance(small_instance("fdma", 2).with_changes(learning=CURVE), tmp_path / "cell.json")
    plan, proof = tmp_path / "plan.json", tmp_path / "proof.json"

    def run(*words: object) -> Any:
        return CliRunner().invoke(main, [str(word) for word in words], standalone_mode=False)

    common = ("--time", 120, "--energy", 20, "--rel-gap", 0.5, "--out", plan, "--certificate", proof)
    weighted = ("--minimise", "weighted", "--weights", 1, 100)
    for words in (
        (*weighted, "--rounds", "1:2", "--target", 0.6),
        (*weighted, "--rounds", "1:9", "--needed", 1, 2),
        ("--minimise", "time", "--rounds", "1:20", "--needed", 1, 2),
    ):
        told = run("plan", case, *common, *words, "--json")
        assert told.exit_code == 0, told.output
        data = json.loads(told.stdout)
        assert data == json.loads(plan.read_text())
        assert data["weights" if "--weights" in words else "learning"]
        assert run("verify", case, plan, "--certificate", proof, "--rel-gap", 0.5).exit_code == 0
        plan.write_text(json.dumps(data | {"lower_bound": data["objective"], "rel_gap": 0.0}))
        assert run("verify", case, plan, "--certificate", proof, "--rel-gap", 0.5).exit_code == 1
    text = run("plan", case, "--minimise", "time", "--rounds", "1:20", "--rel-gap", 0.5, "--needed", 1, 2)
    assert "of these rounds" in text.output
    bad = json.loads(plan.read_text()) | {"learning": {"form": "needed-rounds", "fixed": -1.0, "per_keep": 2.0}}
    plan.write_text(json.dumps(bad))
    assert "learning: fixed" in run("verify", case, plan).output
    told = run("plan", case, "--method", "psca", "--rounds", 2, "--certificate", proof)
    assert "no certificate: status locally_solved" in told.output
