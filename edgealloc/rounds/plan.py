"""The plan of a round: every device's settings as plain scalars, and how good they are proven to be."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgealloc.data.outcome import excess_gap, relative_gap
from edgealloc.data.solution import finite_or_none
from edgealloc.errors import Fault, InputError
from edgealloc.files.solution import dict_from_solution
from edgealloc.formulation.result import Result
from edgealloc.tables.listing import Column, Listing

__all__ = ["Plan", "mask_seed_of", "plan_of"]

NO_DEVICES = "no_devices"  # status of a plan for a round in which nobody is available
_COLUMNS = (
    Column("device", number=False),
    Column("keep"),
    Column("spectrum"),
    Column("power", "mW"),
    Column("clock", "GHz"),
    Column("latency", "s"),
    Column("left out", number=False, fold=True),
)
_SETTINGS = ("keep", "dropout", "bandwidth_hz", "subcarriers", "power_w", "freq_hz", "latency_s", "energy_j")


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """The settings of every device for one round, and how good they are proven to be.

    Parameters
    ----------
    round_number
        The round.
    status
        That of the result, or ``no_devices`` where nobody was available.
    method
        The method that answered; empty without devices.
    objective, lower_bound, free_objective
        Bound G of the allocation, its proven lower bound, and its minimum without resource constraints.
    devices
        Settings by device id, for everybody who was asked; see :meth:`for_device`.
    message
        Why there is no allocation, or a remark on how the method ended.
    seconds
        Time that planning took, in s.
    drop
        Devices that the round was planned without, for they are infeasible even alone; and where the others cannot
        all be carried, devices without which there is an allocation.
    result
        The full result; None without devices, and after :meth:`from_json`.
    """

    round_number: int
    status: str
    method: str
    objective: float
    lower_bound: float
    free_objective: float
    devices: Mapping[str, Mapping[str, Any]]
    message: str = ""
    seconds: float = 0.0
    drop: tuple[str, ...] = ()
    result: Result | None = field(default=None, compare=False)

    @property
    def rel_gap(self) -> float:
        """``(UB - LB) / |UB|``."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def excess_gap(self) -> float:
        """``(UB - LB) / (UB - G_free)``."""
        return excess_gap(self.objective, self.lower_bound, self.free_objective)

    @property
    def selected(self) -> tuple[str, ...]:
        """Ids of the devices that take part."""
        return tuple(key for key, own in self.devices.items() if own["selected"])

    @property
    def samples(self) -> dict[str, float]:
        """Sample counts that the round was planned with, of devices that take part: what their replies weigh."""
        return {key: own["samples"] for key, own in self.devices.items() if own["selected"]}

    def for_device(self, device: str) -> dict[str, Any]:
        """The settings of one device.

        Parameters
        ----------
        device
            Id of the device.

        Returns
        -------
        dict
            Plain scalars and lists of them. ``selected``; for a device left out also ``reason`` and nothing else.
            Otherwise ``samples``, ``keep``, ``dropout``, ``mask_seed`` (below 2^53), ``bandwidth_hz`` or
            ``subcarriers`` (a list), ``power_w`` (a list, one per sub-carrier, for OFDMA), ``freq_hz``,
            ``deadline_s``, and what the settings lead to: ``latency_s``, ``energy_j``. With a menu also
            ``adapter_option``, the label of its row.

        Raises
        ------
        InputError
            For a device that was not part of the round.
        """
        if device not in self.devices:
            allowed = "one of the ids that the round was planned for"
            raise InputError("plan", [Fault(str(device), "id", repr(device), allowed)])
        return {key: list(v) if isinstance(v, list) else v for key, v in self.devices[device].items()}

    def to_json(self) -> str:
        """The plan as ``edgealloc-plan/1`` JSON, but for ``result``; numbers read back to the same bits."""
        data = {"format": "edgealloc-plan/1", **{f.name: getattr(self, f.name) for f in fields(self)}}
        del data["result"]
        for key in ("objective", "lower_bound", "free_objective"):
            data[key] = finite_or_none(data[key])
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        text
            What :meth:`to_json` made; ``edgealloc schema plan`` prints its schema.

        Returns
        -------
        Plan
            The plan without its ``result``.

        Raises
        ------
        InputError
            Lists every fault of a text that is no such plan.
        """
        from edgealloc.files.faults import require_format, structural_faults  # brings pydantic

        try:
            data, told = json.loads(text), ""
        except (ValueError, TypeError, RecursionError) as error:
            data, told = None, str(error)
        if not isinstance(data, dict):
            told = told or f"a JSON {type(data).__name__}"
            raise InputError("plan", [Fault("plan", "content", told, "what Plan.to_json wrote")])
        require_format("plan", data, "plan")
        if found := structural_faults("plan", data):
            raise InputError("plan", (fault for _, fault in found))
        del data["format"]
        none = math.inf if data["status"] == "infeasible" else -math.inf
        missing = {"objective": math.inf, "lower_bound": none, "free_objective": math.inf}
        numbers = {key: none if data[key] is None else float(data[key]) for key, none in missing.items()}
        return cls(**data | numbers | {"drop": tuple(data["drop"])})

    def __repr__(self) -> str:
        taking = f"{len(self.selected)} of {len(self.devices)} devices"
        told = f"Plan of round {self.round_number}: {self.status}"
        told += f" by {self.method}, {taking}" if self.method else f", {taking}"
        if math.isfinite(self.objective):
            told += f", bound {self.objective:.6g}, rel_gap {self.rel_gap:.2g}"
        return told + (f"; drop {', '.join(self.drop)}" if self.drop else "")

    def _repr_html_(self) -> str:
        return self.listing().html()

    def listing(self) -> Listing:
        """The settings of every device, as a table."""
        rows = []
        for name, own in self.devices.items():
            if not own["selected"]:
                rows.append((name, "", "", "", "", "", str(own.get("reason", ""))))
                continue
            carriers = own.get("subcarriers")
            band = f"{own['bandwidth_hz'] / 1e3:.2f} kHz" if carriers is None else f"{len(carriers)} sub-carriers"
            power = own["power_w"]
            watts = math.fsum(power) if isinstance(power, list) else power
            numbers = (f"{own['keep']:.4f}", band, f"{watts * 1e3:.2f}", f"{own['freq_hz'] / 1e9:.3f}")
            rows.append((name, *numbers, f"{own['latency_s']:.3f}", ""))
        return Listing(repr(self), _COLUMNS, tuple(rows), self.message)


def mask_seed_of(seed: int, round_number: int, device: str) -> int:
    """Seed of a device's masks in a round, the same everywhere; below 2^53, so that any JSON reader keeps it."""
    digest = hashlib.blake2b(f"{seed}:{round_number}:{device}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 11


def plan_of(
    result: Result | None,
    devices: Iterable[str],
    deadline_s: float,
    *,
    seed: int = 0,
    round_number: int = 0,
    message: str | None = None,
    without: Mapping[str, str] | None = None,
) -> Plan:
    """The plan that a result makes for these device ids.

    Parameters
    ----------
    result
        Of the devices that were planned for; None where nobody is there.
    devices
        Ids of everybody who was asked.
    deadline_s
        The round's deadline in s.
    seed, round_number
        Make the masks' seeds.
    message
        Replaces the result's.
    without
        Devices that the round was planned without because they are infeasible even alone, each with the budget
        that it lacks.

    Returns
    -------
    Plan
        Its ``drop`` and ``message`` name these devices, unless that is everybody.
    """
    settings: dict[str, dict[str, Any]] = {key: {"selected": False, "reason": "not available"} for key in devices}
    if result is None:
        said = "no device is available" if message is None else message
        return Plan(round_number, NO_DEVICES, "", math.inf, -math.inf, math.inf, settings, said)
    rows: Any = dict_from_solution(result.solution())["devices"]
    instance = result.problem.instance
    for name in instance.device_names:
        settings[name]["reason"] = (
            "left out at the exclusion penalty" if rows else f"no allocation: {result.status}"
        )
    without = without or {}
    for name, why in without.items():
        settings[name]["reason"] = why
    samples = dict(zip(instance.device_names, instance.samples.tolist(), strict=True))
    for row in rows:
        if not row["selected"]:
            continue
        own = {"selected": True, "samples": samples[row["name"]]}
        own |= {key: row[key] for key in _SETTINGS if row[key] is not None}
        own |= {"mask_seed": mask_seed_of(seed, round_number, row["name"]), "deadline_s": deadline_s}
        if row["adapter_option"] is not None:
            own["adapter_option"] = row["adapter_option"]
        settings[row["name"]] = own
    said = result.message if message is None else message
    drop = tuple(without) if set(instance.device_names) - set(without) else ()
    if drop:
        said = "\n".join([*filter(None, [said]), *(f"planned without {name}: {without[name]}" for name in drop)])
    return Plan(
        round_number,
        str(result.status.value),
        result.method,
        float(result.objective),
        float(result.lower_bound),
        float(result.free_objective),
        settings,
        said,
        result.seconds,
        drop,
        result=result,
    )
