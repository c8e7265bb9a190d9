"""Proofs that hold, of small feasible instances of every kind: what a forger would start from.

They are kept in ``proofs/``, for to forge takes no solver. ``python -m tests.verify.forging.honest`` renews them
all, or those that are named.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.form import seal
from edgealloc.data.constraints import Constraint, ParticipationCap, SpectrumCap
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.errors import Fault, InputError
from edgealloc.files.instance import dict_from_instance, instance_from_dict
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.verdict import Budget

__all__ = [
    "ALL",
    "BANDS",
    "CARRIERS",
    "CLUSTERED",
    "CLUSTERED_CARRIERS",
    "COMMON",
    "Honest",
    "faults_of",
    "made",
    "proof_of",
]

Data = dict[str, Any]

PROOFS = Path(__file__).parent / "proofs"
SCARCE: Data = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
CURVE = UnderfitCurve(np.array([0.01, 0.2, 0.5, 1.0]), np.array([3.0, 1.2, 0.4, 0.1]))
MENU = (AdapterOption("r=4", 5e5, 1e8, 1.4), AdapterOption("r=8", 1e6, 2e8, 1.0))
EXPERTS = (
    AdapterOption("r=4", 5e5, 1e8, 1.4, download_bits=2e6, cycles_fixed=3e8),
    AdapterOption("r=8", 1e6, 2e8, 1.0, gain=3e-11),
)
LOGISTIC = UnderfitLogistic(0.1, 1.5)
LEVELS = (np.array([0.05, 0.2, 0.4]),) * 4

# Name: access, number of devices, and what differs from a comfortable cell.
BANDS: dict[str, Data] = {
    "convex": SCARCE,
    "device pooling": SCARCE | {"bound": BoundSpec(pooling="device")},
    "perturbation": SCARCE | {"bound": BoundSpec("perturbation", underfit_weight=0.5)},
    "levels and selection": SCARCE | {"keep_levels": LEVELS, "exclusion_penalty": 9.0},
    "blocks": SCARCE | {"access": "rb", "block_hz": 500.0, "bound": BoundSpec("perturbation")},
    "curve": SCARCE | {"bound": BoundSpec("curve", underfit_curve=CURVE, underfit_weight=0.3)},
    "menus": SCARCE | {"adapter_options": (MENU, None, MENU, None)},
    "experts": SCARCE | {"adapter_options": (EXPERTS, None, EXPERTS, MENU)},
    "logistic": SCARCE | {"bound": BoundSpec("logistic", underfit_logistic=LOGISTIC)},
    "terms of devices": SCARCE | {"device_underfit": (None, CURVE, LOGISTIC, None)},
    "terms of devices, squares": SCARCE
    | {"device_underfit": (LOGISTIC, None, CURVE, None)}
    | {"bound": BoundSpec("perturbation", underfit_weight=0.5, pooling="device")},
    "terms of devices with blocks": SCARCE
    | {"access": "rb", "block_hz": 500.0, "device_underfit": (CURVE, None, None, LOGISTIC)},
    "caps": SCARCE | {"exclusion_penalty": 9.0},
    "caps on blocks": SCARCE | {"access": "rb", "block_hz": 500.0, "exclusion_penalty": 9.0},
}
CAPS: dict[str, tuple[Constraint, ...]] = {
    "caps": (SpectrumCap(4e3, [0, 1]), ParticipationCap(2.0, [1, 2, 3])),
    "caps on blocks": (SpectrumCap(2.2e3, [0, 1]), SpectrumCap(9e3, [0, 1, 2])),
}
COMMON: dict[str, Data] = {
    "common rate": SCARCE | {"common_keep": True},
    "common rate, device pooling": SCARCE | {"common_keep": True, "bound": BoundSpec(pooling="device")},
}
# Names of clusters that come in another order than the devices; two kinds of gaps between them.
PAIRS: Data = {"clusters": (7, 2, 2, 7), "samples": np.array([60.0, 900.0, 500.0, 200.0])}
CLUSTERED: dict[str, Data] = {
    "clusters": SCARCE | PAIRS | {"bound": BoundSpec(pooling="cluster")},
    "clusters of blocks": SCARCE
    | PAIRS
    | {
        "access": "rb",
        "block_hz": 500.0,
        "bound": BoundSpec("perturbation", underfit_weight=0.5, pooling="cluster"),
    },
}
SMALL: Data = {"access": "ofdma", "bandwidth_hz": 2e4, "payload_lora_bits": 2e6}
CARRIERS: dict[str, Data] = {
    "two by four": SMALL | {"devices": 2, "subcarriers": 4},
    "three by six": SMALL | {"devices": 3, "subcarriers": 6, "bound": BoundSpec(pooling="device")},
    "selection": SMALL | {"devices": 2, "subcarriers": 4, "exclusion_penalty": 9.0},
    "curve on carriers": SMALL
    | {"devices": 2, "subcarriers": 4, "bound": BoundSpec("curve", underfit_curve=CURVE, underfit_weight=0.3)},
    "logistic on carriers": SMALL
    | {"devices": 2, "subcarriers": 4, "bound": BoundSpec("logistic", underfit_logistic=LOGISTIC)},
    "terms of devices on carriers": SMALL
    | {"devices": 3, "subcarriers": 5, "device_underfit": (None, CURVE, LOGISTIC)},
    "experts on carriers": SMALL
    | {"devices": 2, "subcarriers": 4, "adapter_options": (EXPERTS[:1] + MENU[1:], None)},
    "common rate on carriers": SMALL | {"devices": 2, "subcarriers": 4, "common_keep": True},
    "levels on carriers": SMALL | {"devices": 2, "subcarriers": 4, "keep_levels": LEVELS[:2]},
    "random": {"seed": 121},
    "tree of owners": {"seed": 1175},
}
CLUSTERED_CARRIERS: dict[str, Data] = {
    "clusters on carriers": SMALL
    | {"devices": 3, "subcarriers": 5, "bandwidth_hz": 6e3, "payload_lora_bits": 1e6, "clusters": (7, 7, 2)}
    | {"samples": np.array([60.0, 900.0, 500.0]), "bound": BoundSpec(pooling="cluster")},
}
OTHERS: dict[str, tuple[int, ...]] = {  # as many clusters, of more objective
    "clusters": (0, 0, 1, 1),
    "clusters of blocks": (0, 0, 1, 1),
    "clusters on carriers": (0, 1, 0),
}
ALL = BANDS | CLUSTERED | COMMON | CARRIERS | CLUSTERED_CARRIERS


@dataclass(frozen=True, slots=True)
class Honest:
    """A feasible instance, what an allocation reaches, the proof of its bound, and that full rates do not fit.

    ``others`` are proofs of larger bounds of instances with other clusters, ``proves`` is the bound that the
    checker finds in the proof and ``work`` what it spends, and ``constraints`` are those of the problem.
    """

    instance: Instance
    objective: float
    data: Data
    greedy: Data | None
    others: dict[str, Data] = field(default_factory=dict)
    proves: float = -math.inf
    work: float = 0.0
    constraints: tuple[Constraint, ...] = ()

    def forged(self, bound: float | None, change: Callable[[Data], None]) -> Data:
        """A copy that claims ``bound``, changed, with the checksum made good again."""
        data = copy.deepcopy(self.data)
        data["lower_bound"] = bound
        change(data)
        data["sha256"] = seal(data)
        return data

    @property
    def above(self) -> float:
        """A bound that no proof can have: more than the allocation reaches."""
        return self.objective + 1e-3 * abs(self.objective)


def faults_of(instance: Instance, data: Data, constraints: tuple[Constraint, ...] = ()) -> tuple[Fault, ...]:
    """What the checker says of a certificate, of its form or of its proof."""
    try:
        return check_certificate(instance, certificate_from_dict(data), constraints=constraints).faults
    except InputError as error:
        return tuple(error.faults)


@cache
def proof_of(name: str) -> Honest:
    """The instance of that name with its proof, as it was written once; it is accepted."""
    kept = json.loads((PROOFS / f"{name.replace(' ', '_')}.json").read_text())
    instance = instance_from_dict(kept["instance"])
    rows = certificate_from_dict(kept["certificate"]).constraints
    assert not faults_of(instance, kept["certificate"], rows)
    known = (kept.get("others", {}), kept["proves"], kept["work"])
    return Honest(instance, kept["objective"], kept["certificate"], kept["greedy"], *known, rows)


def made(name: str) -> Data:
    """What is kept of that name: instance, objective that is reached, and the two proofs."""
    from edgealloc import solve
    from edgealloc.solvers.certify.write import certified
    from tests.conftest import small_instance
    from tests.solvers.ofdma.oracle import random_ofdma

    changes = dict(ALL[name])
    seed = changes.pop("seed", None)
    instance = small_instance(**changes) if seed is None else random_ofdma(np.random.default_rng(seed))
    convex = name in ("convex", "device pooling") or name in COMMON
    gap = 1e-3 if name in OTHERS else 1e-4  # a gap that keeps files short
    result = solve(instance, "convex" if convex else "bnb", rel_gap=gap, constraints=CAPS.get(name, ()))
    assert result.status.has_allocation
    certificate = certified(result, gap)[1]
    budget = Budget.of(0)
    proof = check_certificate(
        instance, certificate, constraints=certificate.constraints, every=True, budget=budget
    )
    found: Data = {
        "objective": result.objective, "certificate": certificate.to_file(), "greedy": None,
        "proves": proof.lower_bound, "work": budget.spent,
    }  # fmt: skip
    if name in OTHERS:
        found["others"] = {
            other: certified(solve(instance.with_changes(clusters=clusters), "bnb", rel_gap=gap), gap)[1].to_file()
            for other, clusters in (("devices", tuple(range(instance.num_devices))), ("partition", OTHERS[name]))
        }
    if name in BANDS | CLUSTERED and instance.exclusion_penalty is None:
        greedy = replace(instance, keep_min=instance.keep_max)
        found["greedy"] = certified(solve(greedy, "bnb"))[1].to_file()
    return {"instance": dict_from_instance(instance), **found}


if __name__ == "__main__":  # writes the proofs anew
    PROOFS.mkdir(exist_ok=True)
    for each in sys.argv[1:] or ALL:
        path = PROOFS / f"{each.replace(' ', '_')}.json"
        path.write_text(json.dumps(made(each)) + "\n")
    from tests.verify.forging.findings import FINDINGS, found_by_solver

    FINDINGS.write_text(json.dumps(found_by_solver()) + "\n")
