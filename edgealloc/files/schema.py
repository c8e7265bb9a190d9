"""The file formats as types: structure, units and ranges of every key (docs/files.md).

The types serve three ends: pydantic checks files against them and reports *all* faults at once, the
published JSON Schemas are generated from them, and mypy knows the keys. Files are checked as plain
dictionaries (``TypedDict``), without an object per device. Imported lazily, for pydantic costs 0.2 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, NotRequired, get_args

from pydantic import Discriminator, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from edgealloc.files.run_types import LearningFile, RunPlanFile
from edgealloc.files.types import CLOSED, Finite, Keep, NonNegative, OneOrMany, Positive, Share, Text

__all__ = ["ConstraintFile", "InstanceFile", "PlanFile", "SolutionFile", "json_schema"]

FileKind = Literal["instance", "solution", "constraints", "plan", "runplan"]


FORMATS: Final[Mapping[FileKind, str]] = {
    "instance": "edgealloc-instance/1",
    "solution": "edgealloc-solution/1",
    "constraints": "edgealloc-constraints/1",
    "plan": "edgealloc-plan/1",
    "runplan": "edgealloc-runplan/1",
}


@with_config(CLOSED)
class UplinkFile(TypedDict):
    """The shared uplink."""

    bandwidth_hz: Annotated[Positive, Field(description="uplink bandwidth B, Hz")]
    noise_psd_dbm_per_hz: Annotated[Finite, Field(description="noise power spectral density N0, dBm/Hz")]
    subcarriers: NotRequired[Annotated[int, Field(ge=1, description="number M of sub-carriers; ofdma only")]]
    block_hz: NotRequired[Annotated[Positive, Field(description="width of a resource block, Hz; rb only")]]


@with_config(CLOSED)
class CurveFile(TypedDict):
    """Measured underfitting term: values at increasing keep rates."""

    keep: Annotated[list[Keep], Field(min_length=2, description="increasing keep rates")]
    value: Annotated[list[Finite], Field(min_length=2, description="term at these rates, not increasing")]


@with_config(CLOSED)
class LogisticFile(TypedDict):
    """Underfitting term 1 / (1 + (s / half)^steepness), dimensionless."""

    half: Annotated[Positive, Field(description="keep rate at which the term is 1/2")]
    steepness: Annotated[Positive, Field(description="how fast it falls there, in log s")]


@with_config(CLOSED)
class BoundFile(TypedDict):
    """Constants of the generalisation bound, dimensionless (docs/model.md, *What is minimised*)."""

    underfit: Annotated[
        Literal["inverse-keep", "perturbation", "curve", "logistic"], Field(description="underfitting term u(s)")
    ]
    underfit_weight: Annotated[NonNegative, Field(description="A, weight of the underfitting term")]
    underfit_curve: NotRequired[CurveFile | None]
    underfit_logistic: NotRequired[LogisticFile | None]
    pooling: Annotated[
        Literal["global", "device", "cluster"],
        Field(description="one stability term, one per device, or one per cluster"),
    ]
    loss_range: Annotated[NonNegative, Field(description="C")]
    lipschitz: Annotated[NonNegative, Field(description="eta")]
    curvature: Annotated[Positive, Field(description="Lam")]
    sparsity_weight: Annotated[NonNegative, Field(description="lam")]
    confidence_delta: Annotated[Finite, Field(gt=0, lt=1, description="delta; holds with probability 1-delta")]


@with_config(CLOSED)
class OptionFile(TypedDict):
    """One row of an adapter menu."""

    label: Annotated[Text, Field(description="name shown in results, for example r=8")]
    payload_lora_bits: Annotated[Positive, Field(description="replaces the device's value, bit")]
    cycles_lora: Annotated[NonNegative, Field(description="replaces the device's value, cycles")]
    underfit_factor: Annotated[NonNegative, Field(description="multiplies u(s_k)")]
    download_bits: NotRequired[
        Annotated[
            NonNegative, Field(description="downloaded beside the sub-adapter and never sent, bit; 0 if absent")
        ]
    ]
    cycles_fixed: NotRequired[
        Annotated[NonNegative, Field(description="added to the device's value, cycles; 0 if absent")]
    ]
    gain: NotRequired[
        Annotated[Positive | None, Field(description="replaces the device's value; null: the device's; not ofdma")]
    ]


@with_config(CLOSED)
class DeviceFile(TypedDict):
    """One device."""

    name: Annotated[Text, Field(description="unique name")]
    samples: Annotated[Positive, Field(description="local training samples n_k")]
    gain: Annotated[OneOrMany, Field(description="channel power gain; for ofdma one per sub-carrier")]
    power_max_w: Annotated[Positive, Field(description="transmit power limit, W")]
    energy_j: Annotated[Positive, Field(description="energy budget of a round, J")]
    energy_static_j: Annotated[NonNegative, Field(description="static part of the energy, J")]
    payload_fixed_bits: Annotated[NonNegative, Field(description="D0, bit")]
    payload_lora_bits: Annotated[Positive, Field(description="D1, bit; D(s) = D0 + D1 s")]
    cycles_fixed: Annotated[NonNegative, Field(description="W0, cycles")]
    cycles_lora: Annotated[NonNegative, Field(description="W1, cycles; W(s) = W0 + W1 s")]
    freq_min_hz: Annotated[Positive, Field(description="least processor frequency, Hz")]
    freq_max_hz: Annotated[Positive, Field(description="greatest processor frequency, Hz")]
    capacitance: Annotated[NonNegative, Field(description="kappa; computing takes kappa f^2 W(s) joules")]
    downlink_bps: NotRequired[
        Annotated[Positive | None, Field(description="downlink rate, bit/s; null: the download takes no time")]
    ]
    keep_min: Annotated[Keep, Field(description="least keep rate")]
    keep_max: Annotated[Keep, Field(description="greatest keep rate")]
    keep_levels: NotRequired[
        Annotated[list[Keep] | None, Field(description="allowed keep rates; null: any in the range")]
    ]
    adapter_options: NotRequired[
        Annotated[list[OptionFile] | None, Field(description="menu of which one row is picked")]
    ]
    underfit_curve: NotRequired[
        Annotated[CurveFile | None, Field(description="underfitting term of this device in place of the bound's")]
    ]
    underfit_logistic: NotRequired[
        Annotated[LogisticFile | None, Field(description="the same, where it is logistic; not both")]
    ]
    cluster: NotRequired[
        Annotated[int | None, Field(ge=0, description="cluster of the device; needed where pooling is cluster")]
    ]


@with_config(CLOSED)
class SelectionFile(TypedDict):
    """Devices may be left out, at a penalty."""

    exclusion_penalty: Annotated[NonNegative, Field(description="stands in place of u(s_k)")]


@with_config(CLOSED)
class InstanceFile(TypedDict):
    """An allocation instance. Keys that may be null may also be absent."""

    format: Literal["edgealloc-instance/1"]
    name: Annotated[str, Field(description="name of the instance")]
    access: Annotated[Literal["fdma", "ofdma", "rb"], Field(description="access scheme")]
    uplink: UplinkFile
    latency_s: Annotated[Positive, Field(description="round deadline T, s")]
    bound: BoundFile
    devices: Annotated[list[DeviceFile], Field(min_length=1)]
    common_keep: NotRequired[Annotated[bool, Field(description="all devices share one keep rate")]]
    selection: NotRequired[SelectionFile | None]
    learning: NotRequired[LearningFile | None]


@with_config(CLOSED)
class DiagnosisFile(TypedDict):
    """Why an instance is infeasible."""

    device: Annotated[str | None, Field(description="device at fault; null: the shared spectrum")]
    budget: Annotated[Text, Field(description="instance field that is too small")]
    available: Annotated[Finite, Field(description="its value in the instance")]
    required: Annotated[Finite | None, Field(description="least value that would do; null: none would")]
    message: Annotated[str, Field(description="the finding in words, with a remedy")]


@with_config(CLOSED)
class SolutionDeviceFile(TypedDict):
    """What one device is given, and what it then uses."""

    name: Text
    keep: Annotated[Share, Field(description="keep rate s; 0 for a device left out")]
    dropout: Annotated[Share, Field(description="1 - keep")]
    bandwidth_hz: Annotated[NonNegative | None, Field(description="bandwidth, Hz; null for ofdma")]
    subcarriers: Annotated[
        list[Annotated[int, Field(ge=0)]] | None, Field(description="sub-carriers, from 0; null unless ofdma")
    ]
    power_w: Annotated[OneOrMany, Field(description="transmit power, W; for ofdma one per sub-carrier listed")]
    selected: Annotated[bool, Field(description="false: left out of the round")]
    adapter_option: Annotated[str | None, Field(description="label of the menu row; null without a menu")]
    freq_hz: Annotated[NonNegative, Field(description="processor frequency, Hz; 0 for a device left out")]
    rate_bps: Annotated[NonNegative, Field(description="uplink rate, bit/s")]
    latency_s: Annotated[NonNegative, Field(description="round latency, s")]
    energy_j: Annotated[NonNegative, Field(description="energy of the round, J")]


class _ConstraintFile(TypedDict):
    """What constraints have in common."""

    name: NotRequired[Annotated[str, Field(description="shown where it is reported")]]
    devices: NotRequired[Annotated[list[Text], Field(min_length=1, description="by name; absent: all")]]


class _CapFile(_ConstraintFile):
    """A cap of a sum over devices."""

    coefficients: NotRequired[Annotated[list[NonNegative], Field(description="of the devices listed; absent: 1")]]


@with_config(CLOSED)
class SpectrumCapFile(_CapFile):
    """At most so much spectrum for a group."""

    kind: Literal["spectrum"]
    limit_hz: Annotated[NonNegative, Field(description="Hz")]


@with_config(CLOSED)
class PowerCapFile(_CapFile):
    """At most so much transmit power for a group."""

    kind: Literal["power"]
    limit_w: Annotated[NonNegative, Field(description="W")]


@with_config(CLOSED)
class EnergyCapFile(_CapFile):
    """At most so much energy for a group."""

    kind: Literal["energy"]
    limit_j: Annotated[NonNegative, Field(description="J")]


@with_config(CLOSED)
class ParticipationCapFile(_CapFile):
    """At most so many devices of a group take part."""

    kind: Literal["participation"]
    limit_devices: Annotated[NonNegative, Field(description="how many")]


@with_config(CLOSED)
class SubcarrierCapFile(_ConstraintFile):
    """At most so many sub-carriers for each device."""

    kind: Literal["subcarriers"]
    limit_subcarriers: Annotated[int, Field(ge=0, description="how many")]


@with_config(CLOSED)
class KeepFloorFile(_ConstraintFile):
    """At least this keep rate for each device that takes part."""

    kind: Literal["keep"]
    keep_min: Annotated[Share, Field(description="least keep rate")]


ConstraintFile = Annotated[
    SpectrumCapFile | PowerCapFile | EnergyCapFile | ParticipationCapFile | SubcarrierCapFile | KeepFloorFile,
    Discriminator("kind"),
]


@with_config(CLOSED)
class ConstraintsFile(TypedDict):
    """Constraints of the user's own, beside an instance."""

    format: Literal["edgealloc-constraints/1"]
    constraints: list[ConstraintFile]


@with_config(CLOSED)
class SolutionFile(TypedDict):
    """A solution. ``devices`` is empty when there is no allocation."""

    format: Literal["edgealloc-solution/1"]
    instance: Annotated[str, Field(description="name of the instance")]
    method: Annotated[Text, Field(description="method that found it")]
    status: Literal["optimal", "locally_solved", "feasible", "no_solution", "infeasible", "error"]
    objective: Annotated[Finite | None, Field(description="bound G of the allocation; null without one")]
    lower_bound: Annotated[Finite | None, Field(description="proven lower bound; null: none")]
    rel_gap: Annotated[NonNegative | None, Field(description="(UB - LB) / |UB|; null: infinite")]
    excess_gap: Annotated[NonNegative | None, Field(description="(UB - LB) / (UB - G_free); null: infinite")]
    free_objective: Annotated[Finite | None, Field(description="G_free, without resource limits")]
    seconds: Annotated[NonNegative, Field(description="wall-clock time, s")]
    diagnosis: NotRequired[list[DiagnosisFile]]
    message: NotRequired[str]
    constraints: NotRequired[
        Annotated[list[ConstraintFile], Field(description="which the claims are about beside the instance")]
    ]
    devices: list[SolutionDeviceFile]


@with_config(CLOSED)
class PlannedDeviceFile(TypedDict):
    """What one device is to do in a round; of a device left out, ``selected`` and ``reason`` alone."""

    selected: Annotated[bool, Field(description="false: takes no part in the round")]
    reason: NotRequired[Annotated[str, Field(description="why it is left out")]]
    samples: NotRequired[Annotated[Positive, Field(description="local samples that its reply weighs")]]
    keep: NotRequired[Annotated[Share, Field(description="keep rate s")]]
    dropout: NotRequired[Annotated[Share, Field(description="1 - keep")]]
    mask_seed: NotRequired[Annotated[int, Field(ge=0, lt=2**53, description="seed of its masks in this round")]]
    bandwidth_hz: NotRequired[Annotated[NonNegative, Field(description="bandwidth, Hz; not for ofdma")]]
    subcarriers: NotRequired[Annotated[list[Annotated[int, Field(ge=0)]], Field(description="from 0; ofdma only")]]
    power_w: NotRequired[Annotated[OneOrMany, Field(description="transmit power, W; for ofdma per sub-carrier")]]
    freq_hz: NotRequired[Annotated[NonNegative, Field(description="processor frequency, Hz")]]
    latency_s: NotRequired[Annotated[NonNegative, Field(description="what this takes, s")]]
    energy_j: NotRequired[Annotated[NonNegative, Field(description="what this costs, J")]]
    deadline_s: NotRequired[Annotated[Positive, Field(description="deadline of the round, s")]]
    adapter_option: NotRequired[Annotated[str, Field(description="label of the menu row")]]


@with_config(CLOSED)
class PlanFile(TypedDict):
    """The plan of a round: settings of every device that was asked, by id."""

    format: Literal["edgealloc-plan/1"]
    round_number: Annotated[int, Field(description="the round")]
    status: Annotated[Text, Field(description="as of a solution, or no_devices")]
    method: Annotated[str, Field(description="method that answered; empty without devices")]
    objective: Annotated[Finite | None, Field(description="bound G of the allocation; null without one")]
    lower_bound: Annotated[Finite | None, Field(description="proven lower bound; null: none")]
    free_objective: Annotated[Finite | None, Field(description="G_free, without resource limits")]
    seconds: Annotated[NonNegative, Field(description="time that planning took, s")]
    message: str
    drop: Annotated[list[str], Field(description="planned without these, or to be dropped")]
    devices: Annotated[dict[str, PlannedDeviceFile], Field(description="settings by device id")]


TYPES: Final[Mapping[FileKind, Any]] = {
    "instance": InstanceFile,
    "solution": SolutionFile,
    "constraints": ConstraintsFile,
    "plan": PlanFile,
    "runplan": RunPlanFile,
}


@cache
def adapter(kind: FileKind) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[kind])


# What types alone cannot say: keys that stand only where the access scheme needs them.
def _if_access(access: str, uplink: dict[str, Any], gain: str) -> dict[str, Any]:
    devices = {"items": {"properties": {"gain": {"type": gain}}}}
    return {
        "if": {"properties": {"access": {"const": access}}},
        "then": {"properties": {"uplink": uplink, "devices": devices}},
    }


def json_schema(kind: FileKind) -> dict[str, Any]:
    """The published JSON Schema (draft 2020-12) of a file format."""
    schema = adapter(kind).json_schema()
    tag = FORMATS[kind]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:{tag.replace('/', ':')}"}
    if kind == "instance":
        no_blocks, no_carriers = {"not": {"required": ["block_hz"]}}, {"not": {"required": ["subcarriers"]}}
        schema["allOf"] = [
            _if_access("fdma", {"allOf": [no_blocks, no_carriers]}, "number"),
            _if_access("rb", {"required": ["block_hz"], **no_carriers}, "number"),
            _if_access("ofdma", {"required": ["subcarriers"], **no_blocks}, "array"),
        ]
    return head | schema


if __name__ == "__main__":  # write the published schemas beside this file
    from pathlib import Path

    from edgealloc.files.disk import write_json

    for _kind in get_args(FileKind):
        print(write_json(json_schema(_kind), Path(__file__).with_name(f"{_kind}.schema.json")))
