"""Devices that answer late or not at all: planned with a margin, and rested when they keep failing.

Lateness is learned per device as a slowdown, the time that a round took over the time that was planned. A device
with slowdown c is planned as if it had c times the cycles and c times the bits: its latency then has to be within
T/c, and its energy is counted with the same margin.

The rule is our own; docs/online.md, section *Stragglers*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray

__all__ = ["StragglerPolicy", "Stragglers", "slowed"]

_OF_A_ROW = ("payload_lora_bits", "cycles_lora", "download_bits", "cycles_fixed")  # what takes a device time


@dataclass(frozen=True, slots=True)
class StragglerPolicy:
    """What to do about devices that are late.

    Parameters
    ----------
    largest_slowdown
        A device is never planned with a larger margin than this.
    forget
        Share of the margin that a device in time loses per round.
    patience
        Rounds missed in a row after which a device rests.
    rest_rounds
        Rounds of the first rest; every further one is twice as long, up to ``longest_rest``.
    longest_rest
        Rounds that a rest takes at most.
    """

    largest_slowdown: float = 2.0
    forget: float = 0.2
    patience: int = 2
    rest_rounds: int = 2
    longest_rest: int = 32

    def __post_init__(self) -> None:
        rules = (
            (self.largest_slowdown >= 1.0 and math.isfinite(self.largest_slowdown), "largest_slowdown", ">= 1"),
            (0.0 <= self.forget <= 1.0, "forget", "in [0, 1]"),
            (self.patience >= 1, "patience", ">= 1"),
            (1 <= self.rest_rounds <= self.longest_rest, "rest_rounds", "in [1, longest_rest]"),
        )
        faults = [
            Fault("stragglers", name, repr(getattr(self, name)), allowed) for ok, name, allowed in rules if not ok
        ]
        if faults:
            raise InputError("stragglers", faults)


@dataclass(slots=True)
class _Record:
    slowdown: float = 1.0
    missed: int = 0
    rests: int = 0
    back_at: int = 0


@dataclass(slots=True)
class Stragglers:
    """What is known of every device's lateness."""

    policy: StragglerPolicy = field(default_factory=StragglerPolicy)
    _records: dict[str, _Record] = field(default_factory=dict)

    def observe(
        self, round_number: int, planned_s: Mapping[str, float], took_s: Mapping[str, float | None]
    ) -> None:
        """Learn from a round.

        Parameters
        ----------
        round_number
            The round.
        planned_s
            Latency that each selected device was planned to have, its margin taken out, in s.
        took_s
            Latency that was seen, in s; None for a device that never answered. Others are taken as in time.
        """
        policy = self.policy
        for device, planned in planned_s.items():
            own = self._records.setdefault(device, _Record())
            took = took_s.get(device, planned)
            if took is None:
                own.missed += 1
                if own.missed >= policy.patience:
                    own.rests += 1
                    own.missed = 0
                    rest = min(policy.rest_rounds * 2 ** (own.rests - 1), policy.longest_rest)
                    own.back_at = round_number + 1 + rest
                continue
            own.missed = own.rests = 0
            ratio = took / planned if planned > 0.0 else 1.0
            faded = 1.0 + (own.slowdown - 1.0) * (1.0 - policy.forget)
            own.slowdown = min(max(ratio, faded, 1.0), policy.largest_slowdown)

    def memory(self) -> dict[str, dict[str, Any]]:
        """What is known, by device id, for JSON."""
        return {device: asdict(own) for device, own in self._records.items()}

    def recall(self, memory: Mapping[str, Mapping[str, Any]]) -> None:
        """Know what :meth:`memory` told, and nothing else.

        Parameters
        ----------
        memory
            What it gave, or its like from JSON.
        """
        self._records = {device: _Record(**own) for device, own in memory.items()}

    def resting(self, round_number: int, devices: Iterable[str]) -> frozenset[str]:
        """Who sits this round out."""
        return frozenset(d for d in devices if d in self._records and self._records[d].back_at > round_number)

    def slowdown(self, device: str) -> float:
        """Margin that a device is planned with, 1 for none."""
        own = self._records.get(device)
        return 1.0 if own is None else own.slowdown

    def padded(self, instance: Instance) -> Instance:
        """The instance with the margins of its devices; the same object where nobody needs one."""
        return slowed(instance, np.array([self.slowdown(name) for name in instance.device_names]))


def slowed(instance: Instance, slow: FloatArray) -> Instance:
    """The instance with devices that have ``slow`` times the cycles and bits, shape [K], each >= 1.

    A device that meets the deadline T there takes at most T / slow; its energy is counted with the same margin.
    The same object where all are 1.
    """
    if np.all(slow == 1.0):
        return instance
    menus = instance.adapter_options
    if menus is not None:
        menus = tuple(
            None
            if menu is None
            else tuple(replace(row, **{key: c * getattr(row, key) for key in _OF_A_ROW}) for row in menu)
            for menu, c in zip(menus, slow.tolist(), strict=True)
        )
    keys = ("payload_fixed_bits", "payload_lora_bits", "cycles_fixed", "cycles_lora")
    return instance.with_changes(adapter_options=menus, **{key: slow * getattr(instance, key) for key in keys})
