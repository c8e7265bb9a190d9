"""Proofs of what is not true, written step by step to deceive: each is refused, and for its own reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.prices import Certificate
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.diagnosis import check_infeasible
from edgealloc.verify.proof.verdict import Budget
from tests.verify.forging.bands import BAND_TRICKS, a_cap_that_fits, a_leaf_that_says_nothing_fits
from tests.verify.forging.carriers import CARRIER_TRICKS
from tests.verify.forging.clusters import CLUSTER_TRICKS
from tests.verify.forging.findings import FINDING_TRICKS, FindingTrick, true_finding
from tests.verify.forging.honest import ALL, faults_of, proof_of
from tests.verify.forging.trick import Trick

TRICKS = (*BAND_TRICKS, *CLUSTER_TRICKS, *CARRIER_TRICKS)
FORGERIES = [(trick, case) for trick in TRICKS for case in trick.cases]
FALSE_FINDINGS = [(trick, case) for trick in FINDING_TRICKS for case in trick.cases]


def named(pairs: list[tuple[Any, str]]) -> list[str]:
    return [f"{trick.forge.__name__}-{case}" for trick, case in pairs]


def test_there_are_many_of_many_kinds() -> None:
    assert len(FORGERIES) + len(FALSE_FINDINGS) >= 200
    assert len({trick.forge for trick in (*TRICKS, *FINDING_TRICKS)}) >= 60


@pytest.mark.parametrize("case", ALL)
def test_what_an_honest_proof_proves_is_known(case: str) -> None:
    """To ten digits, and the work: a checker that finds more or less in it has changed."""
    proof, budget = proof_of(case), Budget.of(0)
    certificate = certificate_from_dict(proof.data)
    checked = check_certificate(
        proof.instance, certificate, constraints=proof.constraints, every=True, budget=budget
    )
    assert checked.lower_bound == pytest.approx(proof.proves, rel=1e-10)
    assert budget.spent == pytest.approx(proof.work, rel=1e-12)


@pytest.mark.parametrize(("trick", "case"), FORGERIES, ids=named(FORGERIES))
def test_a_forgery_is_refused(monkeypatch: pytest.MonkeyPatch, trick: Trick, case: str) -> None:
    """The honest proof is accepted, the forged one names the step that it lies at; without that step it passes."""
    proof = proof_of(case)
    forged = trick.forge(proof)
    assert forged["lower_bound"] is None or forged["lower_bound"] > proof.objective
    faults = faults_of(proof.instance, forged, proof.constraints)
    right = [f for f in faults if f.field.startswith(trick.field) and trick.says in f"{f.value} {f.allowed}"]
    assert right, [str(fault) for fault in faults]
    if trick.off:
        for target, replacement in trick.off:
            monkeypatch.setattr(target, replacement)
        assert not faults_of(proof.instance, forged, proof.constraints)


@pytest.mark.parametrize(("trick", "case"), FALSE_FINDINGS, ids=named(FALSE_FINDINGS))
def test_a_false_finding_is_refused(make_instance: Any, trick: FindingTrick, case: str) -> None:
    """The true one is proved; the false one is named by what is false about it."""
    instance, finding = true_finding(make_instance, case)
    faults, notes = check_infeasible(instance, (finding,))
    assert not faults
    assert any("proved" in note for note in notes), notes
    instance, finding = trick.forge(instance, finding)
    faults, _ = check_infeasible(instance, (finding,))
    right = [f for f in faults if f.field == trick.field and trick.says in f"{f.value} {f.allowed}"]
    assert right, [str(fault) for fault in faults]


@pytest.mark.parametrize(
    ("forge", "case"), [(a_leaf_that_says_nothing_fits, "convex"), (a_cap_that_fits, "common rate")]
)
def test_what_is_not_shown_proves_no_bound(forge: Any, case: str) -> None:
    """Whoever asks for the bound that all leaves prove together, as the writer does, gets one that is true."""
    proof = proof_of(case)
    certificate = certificate_from_dict(forge(proof))
    assert isinstance(certificate, Certificate)
    for claim in (proof.objective, proof.above):
        judged = check_certificate(proof.instance, replace(certificate, lower_bound=claim), every=True)
        assert judged.faults
        assert judged.lower_bound <= proof.objective
