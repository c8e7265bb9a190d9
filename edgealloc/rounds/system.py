"""One round for any federated-learning system: device states in, plain settings per device out.

>>> plan = plan_round(system, {"dev-00": DeviceState(...), "dev-01": DeviceState(...)}, round_number=3)
>>> plan.for_device("dev-00")
{'selected': True, 'keep': 0.41, 'dropout': 0.59, 'mask_seed': 7402, 'bandwidth_hz': 9e4, ...}

Everything is plain scalars, lists and strings, so that it goes through any framework's messages; a JSON round trip
is exact. Needs neither torch nor a framework. What the server does with the replies is in
:mod:`edgealloc.models.exchange.replies`; rounds that follow each other are in :mod:`edgealloc.rounds.allocator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from edgealloc.data.spec import Access, AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic, plain
from edgealloc.errors import Fault, InputError, shown
from edgealloc.rounds.plan import Plan, mask_seed_of, plan_of
from edgealloc.units import FloatArray

__all__ = ["DeviceState", "Plan", "System", "mask_seed_of", "plan_of"]


@dataclass(frozen=True, slots=True)
class System:
    """What does not change from round to round; names, units and meaning are those of instance files.

    Parameters
    ----------
    access
        ``fdma``, ``rb`` or ``ofdma``.
    bandwidth_hz, noise_psd_dbm_per_hz, latency_s
        Uplink bandwidth in Hz, noise power spectral density in dBm/Hz, round deadline in s.
    bound
        Constants of the generalisation bound.
    payload_fixed_bits, payload_lora_bits
        Bits that a device always sends, and bits of the whole adapter (the payload is D0 + D1 s).
    cycles_fixed, cycles_lora
        Processor cycles of a local update, W0 + W1 s, of devices that do not state their own.
    keep_levels
        Keep rates to choose from, or None for any.
    adapter_options
        Adapter menu of every device, or None.
    block_hz
        Width of a resource block in Hz, for ``rb`` only.
    common_keep
        All devices share one keep rate.
    exclusion_penalty
        Not None: devices may be left out of a round at this penalty.
    name
        Name of the instances that are made.
    """

    access: Access
    bandwidth_hz: float
    noise_psd_dbm_per_hz: float
    latency_s: float
    bound: BoundSpec
    payload_fixed_bits: float
    payload_lora_bits: float
    cycles_fixed: float | None = None
    cycles_lora: float | None = None
    keep_levels: tuple[float, ...] | None = None
    adapter_options: tuple[AdapterOption, ...] | None = None
    block_hz: float | None = None
    common_keep: bool = False
    exclusion_penalty: float | None = None
    name: str = "round"

    def __post_init__(self) -> None:
        for key in ("keep_levels", "adapter_options"):
            value = getattr(self, key)
            if value is not None:
                object.__setattr__(self, key, tuple(value))
        allowed = "rows without a gain: the states of a round have them"
        faults = [
            Fault("system", "adapter_options", f"row {row.label!r} with a gain", allowed)
            for row in self.adapter_options or ()
            if isinstance(row, AdapterOption) and row.gain is not None
        ]
        if getattr(self.bound, "pooling", None) == "cluster":
            allowed = "global or device: states have no cluster"
            faults.append(Fault("system", "bound.pooling", "'cluster'", allowed))
        if faults:
            raise InputError("system", faults)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON; :meth:`from_dict` reads them back exactly."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        curve = self.bound.underfit_curve
        data["bound"] = {f.name: getattr(self.bound, f.name) for f in fields(self.bound)}
        if curve is not None:
            data["bound"]["underfit_curve"] = {"keep": curve.keep.tolist(), "value": curve.value.tolist()}
        if self.bound.underfit_logistic is not None:
            data["bound"]["underfit_logistic"] = asdict(self.bound.underfit_logistic)
        if self.keep_levels is not None:
            data["keep_levels"] = list(self.keep_levels)
        if self.adapter_options is not None:
            data["adapter_options"] = [asdict(row) for row in self.adapter_options]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> System:
        """Read what :meth:`to_dict` wrote; values are checked when a round is planned.

        Parameters
        ----------
        data
            What :meth:`to_dict` gave, or its like from JSON.

        Returns
        -------
        System
            The system.

        Raises
        ------
        InputError
            Lists every key that is missing or unknown.
        """
        faults = _key_faults(cls, "system", data)
        bound = data.get("bound", {})
        if not isinstance(bound, Mapping):
            faults.append(Fault("system", "bound", repr(bound), "an object"))
        elif not faults:
            faults += _key_faults(BoundSpec, "system, bound", bound)
            if isinstance(bound.get("underfit_logistic"), Mapping):
                faults += _key_faults(
                    UnderfitLogistic, "system, bound.underfit_logistic", bound["underfit_logistic"]
                )
        menu = data.get("adapter_options")
        for row in menu or ():
            faults += _key_faults(AdapterOption, "system, adapter_options", row)
        if faults:
            raise InputError("system", faults)
        curve = bound.get("underfit_curve")
        if curve is not None:
            bound = {**bound, "underfit_curve": UnderfitCurve(curve["keep"], curve["value"])}
        if bound.get("underfit_logistic") is not None:
            bound = {**bound, "underfit_logistic": UnderfitLogistic(**bound["underfit_logistic"])}
        rows = None if menu is None else tuple(AdapterOption(**row) for row in menu)
        return cls(**{**data, "bound": BoundSpec(**bound), "adapter_options": rows})


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device reports before a round, as plain scalars; those of numpy and torch become plain.

    Parameters
    ----------
    gain
        Channel power gain, dimensionless: one number; for OFDMA one per sub-carrier, shape [M].
    samples
        Local training samples.
    energy_j
        Energy in J that the round may cost the device.
    power_max_w
        Transmit power limit in W.
    freq_min_hz, freq_max_hz, capacitance
        Processor frequency range in Hz; W cycles at frequency f take ``capacitance f^2 W`` J.
    cycles_fixed, cycles_lora
        Cycles of a local update, W0 + W1 s; None for the system's.
    energy_static_j
        Part of the energy, in J, that the round costs in any case.
    downlink_bps
        Downlink rate in bit/s; None where the download takes no time.
    keep_min, keep_max
        Range of the keep rate.
    available
        False: the device takes no part in this round.
    """

    gain: float | Sequence[float] | FloatArray
    samples: float
    energy_j: float
    power_max_w: float
    freq_min_hz: float
    freq_max_hz: float
    capacitance: float
    cycles_fixed: float | None = None
    cycles_lora: float | None = None
    energy_static_j: float = 0.0
    downlink_bps: float | None = None
    keep_min: float = 0.05
    keep_max: float = 1.0
    available: bool = True

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, plain(getattr(self, f.name)))
        if isinstance(self.gain, list):
            object.__setattr__(self, "gain", tuple(map(plain, self.gain)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON; :meth:`from_dict` reads them back exactly."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        if isinstance(self.gain, tuple):
            data["gain"] = list(self.gain)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], device: str = "device") -> DeviceState:
        """Read what :meth:`to_dict` wrote; values are checked when a round is planned.

        Parameters
        ----------
        data
            What :meth:`to_dict` gave, or its like from JSON.
        device
            Name of the device in the message of an error.

        Returns
        -------
        DeviceState
            The state.

        Raises
        ------
        InputError
            Lists every key that is missing or unknown.
        """
        if not isinstance(data, Mapping):
            raise InputError(
                f"state of {device!r}", [Fault(device, "state", f"<{type(data).__name__}>", "fields by name")]
            )
        faults = _key_faults(cls, device, data)
        if faults:
            raise InputError(f"state of {device!r}", faults)
        return cls(**data)


def _key_faults(kind: type, where: str, data: Mapping[str, Any]) -> list[Fault]:
    """Keys that a dataclass does not know, and those without a default that are missing."""
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}
    faults = [
        Fault(where, key if isinstance(key, str) else shown(key), "given", "known keys: " + ", ".join(known))
        for key in data
        if key not in known
    ]
    faults += [
        Fault(where, key, "missing", "a value") for key, needed in known.items() if needed and key not in data
    ]
    return faults
