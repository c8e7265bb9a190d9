"""Proofs that hold, of small feasible instances of every kind: what a forger would start from."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.form import seal
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve
from edgealloc.errors import Fault, InputError
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from tests.solvers.ofdma.oracle import random_ofdma

__all__ = ["BANDS", "CARRIERS", "COMMON", "Honest", "faults_of", "proof_of"]

Data = dict[str, Any]
MakeInstance = Callable[..., Instance]

SCARCE: Data = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
CURVE = UnderfitCurve(np.array([0.01, 0.2, 0.5, 1.0]), np.array([3.0, 1.2, 0.4, 0.1]))
MENU = (AdapterOption("r=4", 5e5, 1e8, 1.4), AdapterOption("r=8", 1e6, 2e8, 1.0))
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
}
COMMON: dict[str, Data] = {
    "common rate": SCARCE | {"common_keep": True},
    "common rate, device pooling": SCARCE | {"common_keep": True, "bound": BoundSpec(pooling="device")},
}
SMALL: Data = {"access": "ofdma", "bandwidth_hz": 2e4, "payload_lora_bits": 2e6}
CARRIERS: dict[str, Data] = {
    "two by four": SMALL | {"devices": 2, "subcarriers": 4},
    "three by six": SMALL | {"devices": 3, "subcarriers": 6, "bound": BoundSpec(pooling="device")},
    "selection": SMALL | {"devices": 2, "subcarriers": 4, "exclusion_penalty": 9.0},
    "curve on carriers": SMALL
    | {"devices": 2, "subcarriers": 4, "bound": BoundSpec("curve", underfit_curve=CURVE, underfit_weight=0.3)},
    "random": {"seed": 121},
    "tree of owners": {"seed": 1175},
}


@dataclass(frozen=True, slots=True)
class Honest:
    """A feasible instance, what its best known allocation reaches, and the file that proves its bound."""

    instance: Instance
    objective: float
    data: Data

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


def faults_of(instance: Instance, data: Data) -> tuple[Fault, ...]:
    """What the checker says of a certificate, of its form or of its proof."""
    try:
        return check_certificate(instance, certificate_from_dict(data)).faults
    except InputError as error:
        return tuple(error.faults)


@cache
def _proof(make_instance: MakeInstance, name: str) -> Honest:
    changes = dict((BANDS | COMMON | CARRIERS)[name])
    seed = changes.pop("seed", None)
    instance = make_instance(**changes) if seed is None else random_ofdma(np.random.default_rng(seed))
    convex = name in ("convex", "device pooling") or name in COMMON
    result = solve(instance, "convex" if convex else "bnb", rel_gap=1e-4)
    assert result.status.has_allocation
    data = json.loads(json.dumps(certified(result, 1e-4)[1].to_file()))
    assert not faults_of(instance, data)
    return Honest(instance, result.objective, data)


def proof_of(make_instance: MakeInstance, name: str) -> Honest:
    """The instance of that name with its proof, which is made once, and accepted."""
    return _proof(make_instance, name)
