"""Certificates of plans: accepted as written, refused when anything in them is made easier than the truth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import (
    EdgeallocError,
    Instance,
    LearningSpec,
    ParticipationCap,
    RunPlan,
    SpectrumCap,
    Status,
    plan_run,
)
from edgealloc.certificate.prices import Certificate, Node, Pieces, Planes
from edgealloc.certificate.run import RunCertificate, RunPiece, load_run_certificate
from edgealloc.files.run import load_run
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof import verdict
from edgealloc.verify.proof.verdict import Budget
from edgealloc.verify.run import verify_run
from tests.conftest import small_instance

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
Proved = tuple[Instance, RunPlan, RunCertificate]


@pytest.fixture(scope="module")
def proved() -> Proved:
    """A plan of a small cell with its certificate of several intervals."""
    cell = small_instance("fdma", 3)
    plan, certificate = plan_run(
        cell, time_s=120.0, energy_j=25.0, rounds=(1, 20), curve=CURVE, rel_gap=3e-3
    ).certified()
    assert len(certificate.pieces) > 3
    return cell, plan, certificate


def faults_of(cell: Instance, plan: RunPlan, certificate: RunCertificate) -> str:
    return "\n".join(map(str, verify_run(cell, plan.claims(), certificate, rel_gap=0.1).faults))


def test_a_certificate_is_accepted_also_from_its_file(proved: Proved, tmp_path: Path) -> None:
    cell, plan, certificate = proved
    report = verify_run(cell, plan.claims(), certificate, rel_gap=3e-3)
    assert report.ok, str(report)
    assert any("proved lower_bound of the loss" in note for note in report.notes)
    again = load_run_certificate(certificate.save(tmp_path / "proof.json"))
    assert verify_run(cell, plan.claims(), again, rel_gap=3e-3).ok


@pytest.mark.parametrize("access", ["rb", "ofdma"])
def test_other_access_schemes_have_certificates(access: Any) -> None:
    cell = small_instance(access, 2, 4)
    plan, certificate = plan_run(
        cell, time_s=60.0, energy_j=9.0, rounds=(1, 5), curve=CURVE, rel_gap=1e-3
    ).certified()
    assert verify_run(cell, plan.claims(), certificate, rel_gap=1e-3).ok


def test_pieces_prove_little_more_than_the_plan_needs(proved: Proved) -> None:
    """What a round's own optimum is does not matter: proofs grow the closer they come to it."""
    _, plan, certificate = proved
    solves = {(s.interval.first, s.interval.last): s.result for s in plan.pieces}
    needed, ample = plan.lower_bound - CURVE.floor, 0
    for piece in certificate.pieces:
        own, claimed = solves[piece.first, piece.last], piece.certificate.lower_bound
        if own.status is not Status.INFEASIBLE and own.lower_bound > 1.01 * needed:
            ample += 1
            assert needed <= claimed <= 0.85 * needed + 0.15 * own.lower_bound
    assert ample


@pytest.mark.parametrize("aim", ["energy", pytest.param("time", marks=pytest.mark.slow)])
def test_the_least_budget_is_proved(aim: Any) -> None:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {"time_s": 120.0, "energy_j": 20.0, "curve": CURVE, "rounds": (1, 6)}
    plan, certificate = plan_run(cell, **common, minimise=aim, target=0.52, rel_gap=0.05).certified()
    assert verify_run(cell, plan.claims(), certificate, rel_gap=0.05).ok
    forged = replace(plan, lower_bound=0.5 * (plan.lower_bound + plan.objective) * 1.02)
    forged = replace(forged, lower_bound=min(forged.lower_bound, plan.objective))
    assert "pieces" in faults_of(cell, forged, certificate)


def test_infeasibility_is_proved() -> None:
    cell = small_instance("fdma", 2)
    plan, certificate = plan_run(cell, time_s=1e-3, rounds=(1, 6), curve=CURVE).certified()
    assert certificate.lower_bound == math.inf
    assert verify_run(cell, plan.claims(), certificate).ok
    more = replace(plan, run=replace(plan.run, time_s=100.0))
    assert "latency_s" in faults_of(cell, more, certificate)


@pytest.fixture(scope="module")
def out_of_reach() -> Proved:
    """A cell whose own deadline is too short for any round, and the proof."""
    cell = small_instance("fdma", 2).with_changes(latency_s=1e-3)
    plan, certificate = plan_run(cell, rounds=(1, 3), curve=CURVE).certified()
    assert verify_run(cell, plan.claims(), certificate).ok
    return cell, plan, certificate


def test_infeasible_is_claimed_of_all_times_and_not_of_those_up_to_a_bound(out_of_reach: Proved) -> None:
    cell, plan, certificate = out_of_reach
    claims = replace(plan.claims(), minimise="time", target=0.9)
    assert verify_run(cell, claims, certificate).ok  # the deadline holds in every round
    for lie in ({"lower_bound": 1e-3}, {"loss": 0.5}, {"latency_s": 1.0}, {"rel_gap": 0.0}):
        report = verify_run(cell, replace(claims, **lie), certificate)
        assert [fault.field for fault in report.faults] == list(lie), lie
    # nothing holds a round that has the whole time, and of that there is no end
    report = verify_run(cell, replace(claims, caps=False), certificate)
    assert [fault.field for fault in report.faults] == ["status"]


def test_a_target_out_of_reach_is_not_infeasible_where_no_time_is_too_long() -> None:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {"minimise": "time", "target": 0.2, "rounds": (1, 1), "curve": CURVE}
    assert CURVE.floor > 0.2
    plan, certificate = plan_run(cell, caps=False, **common).certified()
    assert plan.status is Status.NO_SOLUTION
    assert verify_run(cell, plan.claims(), certificate).ok
    assert plan_run(cell, **common).status is Status.INFEASIBLE


def test_a_proof_that_leans_on_constraints_nobody_stated_is_refused(proved: Proved) -> None:
    """With a cap of no device at all every round is infeasible, truly; but the plan knows no such cap."""
    cell, plan, certificate = proved
    rows = (ParticipationCap(0.0, cell.device_names),)
    zero, none = np.zeros(3), np.zeros(3, dtype=np.intp)
    low, high = cell.keep_min, cell.keep_max
    pieces = Pieces(np.arange(3), none, low, high, Planes(low, zero, zero, none, zero))
    lie = Certificate(cell.name, "prices", math.inf, pieces, (Node(),), constraints=rows)
    assert not check_certificate(cell, lie, constraints=rows).faults
    parts = tuple(replace(piece, certificate=lie) for piece in certificate.pieces)
    told = faults_of(cell, plan, replace(certificate, pieces=parts))
    assert "pieces[0]: constraints" in told


def test_a_hole_in_the_cover_is_refused(proved: Proved) -> None:
    cell, plan, certificate = proved
    for i in range(len(certificate.pieces)):
        rest = certificate.pieces[:i] + certificate.pieces[i + 1 :]
        assert "intervals that cover the whole range" in faults_of(cell, plan, replace(certificate, pieces=rest))
    wider = replace(plan, span=plan.span._replace(last=21))
    assert "none for 21 rounds" in faults_of(cell, wider, certificate)


def worse(piece: RunPiece, key: str, share: float) -> RunPiece:
    """A piece with one number of its terms raised."""
    terms: Any = piece.terms
    return replace(piece, terms=replace(terms, **{key: getattr(terms, key) * (1.0 + share)}))


def test_a_problem_that_is_not_easier_is_refused(proved: Proved) -> None:
    cell, plan, certificate = proved
    for i, piece in enumerate(certificate.pieces):
        last = piece.last + 1
        tighter = np.array(piece.energy_j)
        tighter[1] *= 1.0 - 1e-9
        forgeries = {
            "latency_s": replace(piece, latency_s=piece.latency_s * (1.0 - 1e-9)),
            "energy_j[1]": replace(piece, energy_j=tighter),
            "half": worse(piece, "half", 1e-9),
            "steepness": worse(piece, "steepness", 1e-6),
            "lipschitz": worse(piece, "lipschitz", 1e-9),
            "loss_range": worse(piece, "loss_range", 1e-9),
            "terms below": replace(piece, last=last),
        }
        if piece.first == 1:
            forgeries |= {"first": replace(piece, first=0)}
        for words, forged in forgeries.items():
            others = certificate.pieces[:i] + certificate.pieces[i + 1 :]
            told = faults_of(cell, plan, replace(certificate, pieces=(forged, *others)))
            assert "pieces[0]" in told or "none for" in told, f"{words}: {told}"


def test_a_forged_bound_is_refused(proved: Proved) -> None:
    cell, plan, certificate = proved
    higher = plan.lower_bound * (1.0 + 1e-9)
    forged = replace(plan, lower_bound=higher)
    assert "which the certificate is about" in faults_of(cell, forged, certificate)
    assert "pieces" in faults_of(cell, forged, replace(certificate, lower_bound=higher))
    assert "pieces" in faults_of(cell, plan, replace(certificate, lower_bound=math.inf))
    i = min(range(len(certificate.pieces)), key=lambda k: certificate.pieces[k].certificate.lower_bound)
    piece = certificate.pieces[i]
    lied = replace(piece, certificate=replace(piece.certificate, lower_bound=piece.certificate.lower_bound * 1.01))
    pieces = (*certificate.pieces[:i], lied, *certificate.pieces[i + 1 :])
    assert f"certificate, pieces[{i}]" in faults_of(cell, plan, replace(certificate, pieces=pieces))


def test_claims_of_a_plan_are_recomputed(proved: Proved) -> None:
    cell, plan, _ = proved
    claims = plan.claims()
    assert verify_run(cell, claims, rel_gap=3e-3).ok
    forgeries: dict[str, Any] = {
        "loss": {"loss": claims.loss * 0.99, "objective": claims.loss * 0.99},  # type: ignore[operator]
        "latency_s": {"time_s": claims.time_s * 0.01},  # type: ignore[operator]
        "energy_j": {"energy_j": {name: 0.3 for name in cell.device_names}},
        "rounds": {"rounds": 21},
        "rel_gap": {"rel_gap": 0.5},
        "lower_bound": {"lower_bound": claims.loss * 1.01},  # type: ignore[operator]
        "instance": {"instance_name": "another"},
        "round": {"status": Status.NO_SOLUTION},
        "target": {"target": 1.0},
        "learning": {"learning": replace(claims.learning, pace=0.7)},
    }
    for words, changes in forgeries.items():
        report = verify_run(cell, replace(claims, **changes), rel_gap=3e-3)
        assert not report.ok, words


def test_a_plan_of_a_broken_form_is_refused_by_name(proved: Proved) -> None:
    cell, plan, certificate = proved
    claims = plan.claims()
    assert claims.round is not None
    empty = replace(claims.round, status=Status.NO_SOLUTION)
    forgeries: dict[str, dict[str, Any]] = {
        "round.status": {"round": empty},
        "rounds_range": {"span": (20, 1)},
        "growth": {"learning": replace(claims.learning, growth=-1.0)},
        "latency_s": {"latency_s": -1.0},
        "energy_j": {"energy_j": dict.fromkeys(cell.device_names, 5e-324)},
    }
    for field, changes in forgeries.items():
        report = verify_run(cell, replace(claims, **changes), certificate, rel_gap=3e-3)
        assert field in [fault.field for fault in report.faults], str(report)
    nothing = {"rounds": None, "latency_s": None, "loss": None, "objective": None, "rel_gap": None, "round": None}
    lie = replace(claims, **nothing, status=Status.NO_SOLUTION, span=(20, 1), lower_bound=99.0)
    report = verify_run(cell, lie, RunCertificate(cell.name, 99.0, ()))
    assert [fault.field for fault in report.faults] == ["rounds_range"]  # no interval is needed to cover it


def test_the_command_line_plans_and_verifies(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from edgealloc.cli.app import main
    from edgealloc.files.instance import save_instance

    case = save_instance(small_instance("fdma", 2).with_changes(learning=CURVE), tmp_path / "cell.json")
    plan, proof = tmp_path / "plan.json", tmp_path / "proof.json"

    def run(*words: object) -> Any:
        return CliRunner().invoke(main, [str(word) for word in words], standalone_mode=False)

    budgets = ("--time", 60, "--energy", 9, "--rounds", "1:4")
    told = run("plan", case, *budgets, "--out", plan, "--certificate", proof, "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["status"] == "optimal"
    assert run("verify", case, plan, "--certificate", proof).exit_code == 0
    data = json.loads(plan.read_text())
    plan.write_text(json.dumps(data | {"loss": data["loss"] * 0.9}))
    assert run("verify", case, plan, "--certificate", proof).exit_code == 1
    assert run("plan", case, "--time", 1e-3).exit_code == 3
    assert "rounds        4" in run("plan", case, "--rounds", 4).output


@pytest.fixture(scope="module")
def constrained() -> Proved:
    """A plan under two constraints that bind, with its certificate."""
    cell = small_instance("fdma", 3)
    rows = (
        SpectrumCap(0.005 * cell.bandwidth_hz, cell.device_names[:2], "cluster"),
        SpectrumCap(0.006 * cell.bandwidth_hz, cell.device_names[1:], "tenant"),
    )
    plan, certificate = plan_run(
        cell, time_s=120.0, energy_j=25.0, rounds=(1, 20), curve=CURVE, rel_gap=3e-3, constraints=rows
    ).certified()
    assert all(piece.certificate.constraints for piece in certificate.pieces)
    return cell, plan, certificate


def test_a_plan_under_constraints_is_proved(constrained: Proved, proved: Proved, tmp_path: Path) -> None:
    cell, plan, certificate = constrained
    assert plan.lower_bound > proved[1].objective  # they bind
    again = load_run_certificate(certificate.save(tmp_path / "proof.json"))
    report = verify_run(cell, load_run(plan.save(tmp_path / "plan.json")), again, rel_gap=3e-3)
    assert report.ok, str(report)
    assert any("under the plan's 2 constraints" in note for note in report.notes)


def test_pieces_lean_on_the_constraints_of_the_plan_alone(constrained: Proved, proved: Proved) -> None:
    cell, plan, certificate = constrained
    claims = plan.claims()
    assert claims.round is not None
    for rows in (
        (),
        claims.round.constraints[:1],
        tuple(replace(row, **{row.key: 1.01 * row.limit}) for row in claims.round.constraints),
    ):
        lie = replace(claims, round=replace(claims.round, constraints=rows))
        told = "\n".join(map(str, verify_run(cell, lie, certificate, rel_gap=0.1).faults))
        assert "pieces[0]: constraints" in told, rows
    # a plan that states none cannot borrow a bound that holds under some
    free = replace(proved[1], lower_bound=proved[1].objective)
    assert "pieces[0]: constraints" in faults_of(cell, free, certificate)
    # one piece with a tighter cap of its own among honest ones
    i = min(range(len(certificate.pieces)), key=lambda k: certificate.pieces[k].certificate.lower_bound)
    piece = certificate.pieces[i]
    own = tuple(replace(row, **{row.key: 0.5 * row.limit}) for row in piece.certificate.constraints)
    forged = replace(piece, certificate=replace(piece.certificate, constraints=own))
    pieces = (*certificate.pieces[:i], forged, *certificate.pieces[i + 1 :])
    assert f"pieces[{i}]: constraints" in faults_of(cell, plan, replace(certificate, pieces=pieces))


def test_constraints_of_a_plan_that_do_not_fit_are_named(constrained: Proved) -> None:
    cell, plan, certificate = constrained
    claims = plan.claims()
    assert claims.round is not None
    strange = (ParticipationCap(1.0, ("nobody",)),)
    report = verify_run(cell, replace(claims, round=replace(claims.round, constraints=strange)), certificate)
    assert "nobody" in str(report)
    assert not report.ok


def test_infeasibility_under_constraints_that_no_plan_states_has_no_certificate() -> None:
    cell = small_instance("fdma", 3)
    rows = (SpectrumCap(1e-5 * cell.bandwidth_hz, cell.device_names, "cluster"),)
    plan = plan_run(cell, rounds=(1, 3), curve=CURVE, constraints=rows)
    assert plan.status is Status.INFEASIBLE
    with pytest.raises(EdgeallocError, match="does not state"):
        plan.certified()


def test_all_pieces_together_take_no_more_work_than_their_size_allows(
    proved: Proved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many small pieces may take what one certificate may, but not all of them."""
    cell, plan, certificate = proved
    many = replace(certificate, pieces=certificate.pieces * 40)
    read = load_run_certificate(many.save(tmp_path / "many.json"))
    assert verify_run(cell, plan.claims(), read, rel_gap=3e-3).ok
    spent: list[float] = []
    spend = Budget.spend

    def noted(budget: Budget, work: float) -> None:
        spend(budget, work)
        spent.append(budget.spent)

    monkeypatch.setattr(Budget, "spend", noted)
    few = load_run_certificate(certificate.save(tmp_path / "few.json"))
    assert verify_run(cell, plan.claims(), few, rel_gap=3e-3).ok
    assert spent == sorted(spent)  # one budget for all
    monkeypatch.setattr(verdict, "WORK", 2.0 * spent[-1])
    assert verify_run(cell, plan.claims(), few, rel_gap=3e-3).ok
    told = faults_of(cell, plan, read)
    assert "work" in told
    assert "pieces[0]" not in told
