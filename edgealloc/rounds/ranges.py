"""What a device may say of itself: the physical range of every field of its state, and who is outside.

States come from devices, which may be wrong or lie. What no device can have is refused by name before anything is
made of it. Ranges are wide, for what they keep out are numbers of another kind: 1e100 samples, a gain above 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.spec import MOST_SAMPLES, number_of
from edgealloc.errors import Fault, shown, steers

if TYPE_CHECKING:
    from edgealloc.rounds.system import DeviceState, Plan, System

__all__ = [
    "ID_ALLOWED",
    "RANGES",
    "Range",
    "id_text",
    "is_id",
    "kind_faults",
    "report_faults",
    "state_faults",
    "system_faults",
]

MOST_SUBCARRIERS = 65_536
_LONGEST_ID = 256  # characters
ID_ALLOWED = f"text of 1 to {_LONGEST_ID} characters that can be printed"


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be.

    Parameters
    ----------
    least, most
        Bounds in the field's unit, both allowed.
    unit
        For messages.
    """

    least: float
    most: float
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Whether a number is in range; nan never is."""
        return bool(self._inside(value))

    def holds_all(self, values: Sequence[Any]) -> bool:
        """Whether these are plain numbers and all in range: a quick look, so False may still be all well."""
        if not {type(value) for value in values} <= {int, float}:
            return False
        try:
            return bool(np.all(self._inside(np.array(values, dtype=float))))
        except OverflowError:  # an integer that no double holds
            return False

    def _inside(self, value: Any) -> Any:
        return (value >= self.least) & (value <= self.most)

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g} {self.unit}".rstrip()


# Why each bound is one: docs/embedding.md, *States that lie*.
RANGES: dict[str, Range] = {
    "gain": Range(0.0, 1.0),
    "samples": Range(1.0, MOST_SAMPLES),
    "energy_j": Range(1e-12, 1e9, "J"),
    "energy_static_j": Range(0.0, 1e9, "J"),
    "power_max_w": Range(1e-12, 1e4, "W"),
    "freq_min_hz": Range(1.0, 1e18, "Hz"),
    "freq_max_hz": Range(1.0, 1e18, "Hz"),
    "capacitance": Range(0.0, 1e-12, "J s^2/cycle^3"),
    "cycles_fixed": Range(0.0, 1e24, "cycles"),
    "cycles_lora": Range(0.0, 1e24, "cycles"),
    "downlink_bps": Range(1e-3, 1e15, "bit/s, or none for no downlink time"),
    "keep_min": Range(1e-6, 1.0),
    "keep_max": Range(0.01, 1.0),
}


def is_id(device: object) -> bool:
    """Whether something may be a device's id: :data:`ID_ALLOWED`."""
    return isinstance(device, str) and not steers(device) and 0 < len(device) <= _LONGEST_ID


def id_text(device: object) -> str:
    """A device's id for a message: as it is where it can be printed."""
    return device if isinstance(device, str) and not steers(device) else shown(device)


def system_faults(system: System) -> list[Fault]:
    """Fields of a system that are not numbers at all; whether numbers are in range is for the instance to say."""
    keys = ("bandwidth_hz", "noise_psd_dbm_per_hz", "latency_s", "payload_fixed_bits", "payload_lora_bits")
    return [
        Fault("system", key, shown(getattr(system, key)), "a number")
        for key in keys
        if math.isnan(number_of(getattr(system, key)))
    ]


def kind_faults(devices: Mapping[Any, Any], kind: type) -> list[Fault]:
    """Ids that are no names, and states that are none."""
    faults = []
    for name, state in devices.items():
        if not is_id(name):
            faults.append(Fault(id_text(name), "id", shown(name), ID_ALLOWED))
        if not isinstance(state, kind):
            faults.append(Fault(id_text(name), "state", f"<{type(state).__name__}>", "a DeviceState"))
        elif not isinstance(state.available, bool | np.bool_):  # type: ignore[attr-defined]
            faults.append(Fault(id_text(name), "available", shown(state.available), "true or false"))  # type: ignore[attr-defined]
    return faults


def state_faults(system: System, devices: Mapping[str, DeviceState]) -> list[Fault]:
    """Everything that is wrong with the states of the devices of a round, with device and field.

    Parameters
    ----------
    system
        For the access scheme, and for cycles that a device does not state.
    devices
        States by id, of those who are available.

    Returns
    -------
    list of Fault
        Empty if all may take part.
    """
    faults: list[Fault] = []
    lengths = Counter(len(s.gain) for s in devices.values() if isinstance(s.gain, tuple))
    usual = lengths.most_common(1)[0][0] if lengths else 0  # of most, not of the first: that one may lie
    if system.access == "ofdma" or not RANGES["gain"].holds_all([s.gain for s in devices.values()]):
        for name, state in devices.items():
            faults += _gain_faults(system, name, state.gain, usual)
    for low, high in (("freq_min_hz", "freq_max_hz"), ("keep_min", "keep_max")):
        for name, state in devices.items():
            bottom, top = getattr(state, low), getattr(state, high)
            plain = type(bottom) is float and type(top) is float  # as nearly always: sooner compared
            if bottom > top if plain else number_of(bottom) > number_of(top):
                faults.append(Fault(name, low, shown(bottom), f"at most {high}"))
    for key, allowed in RANGES.items():
        if key == "gain":
            continue
        column = [getattr(state, key) for state in devices.values()]
        if key in ("cycles_fixed", "cycles_lora"):
            column = [getattr(system, key) if value is None else value for value in column]
        elif key == "downlink_bps":  # none, or infinite: the download takes no time
            column = [allowed.most if value is None or number_of(value) == math.inf else value for value in column]
        if not allowed.holds_all(column):
            for name, value in zip(devices, column, strict=True):
                if not allowed.holds(number_of(value)):
                    faults.append(Fault(name, key, shown(value), str(allowed)))
    if system.common_keep and system.exclusion_penalty is None:
        faults += _apart(devices)
    return faults


def _gain_faults(system: System, name: str, gain: Any, usual: int) -> list[Fault]:
    """What is wrong with a gain: the first thing, for a list may hold thousands."""
    many = isinstance(gain, tuple)
    if many != (system.access == "ofdma"):
        return [Fault(name, "gain", shown(gain), "a list for access ofdma, one number for fdma and rb")]
    if many and not 0 < len(gain) <= MOST_SUBCARRIERS:
        return [Fault(name, "gain", f"{len(gain)} numbers", f"1 to {MOST_SUBCARRIERS} numbers")]
    if many and len(gain) != usual:
        return [Fault(name, "gain", f"{len(gain)} numbers", f"{usual} numbers, as most devices have")]
    if RANGES["gain"].holds_all(gain if many else (gain,)):
        return []
    for m, value in enumerate(gain if many else (gain,)):
        if not RANGES["gain"].holds(number_of(value)):
            allowed = f"{RANGES['gain']}: no channel gives more than was sent"
            return [Fault(name, f"gain[{m}]" if many else "gain", shown(value), allowed)]
    return []


def _apart(devices: Mapping[str, DeviceState]) -> list[Fault]:
    """Under one common keep rate: whose range lies beside that of most, lest all others are blamed for it."""
    low = [number_of(s.keep_min) for s in devices.values()]
    high = [number_of(s.keep_max) for s in devices.values()]
    if max(low, default=0.0) <= min(high, default=1.0) or any(map(math.isnan, low + high)):
        return []
    least, most = float(np.median(low)), float(np.median(high))
    allowed = f"a range that meets [{least:g}, {most:g}], the usual one (common_keep)"
    return [
        Fault(name, "keep_max" if top < least else "keep_min", shown(top if top < least else bottom), allowed)
        for name, bottom, top in zip(devices, low, high, strict=True)
        if top < least or bottom > most
    ]


def report_faults(latency_s: object, plan: Plan | None) -> list[Fault]:
    """What in a report is no latency, or of a device that the round does not know."""
    if not isinstance(latency_s, Mapping):
        return [Fault("report", "latency_s", f"<{type(latency_s).__name__}>", "seconds by device id")]
    faults = []
    for device, took in latency_s.items():
        if plan is not None and device not in plan.devices:
            faults.append(
                Fault(id_text(device), "id", shown(device), f"one that round {plan.round_number} was planned with")
            )
        if took is not None and not 0.0 <= number_of(took) < math.inf:
            allowed = "a finite number of seconds >= 0, or None for a device that never answered"
            faults.append(Fault(id_text(device), "latency_s", shown(took), allowed))
    return faults
