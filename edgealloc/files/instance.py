"""Instance files: instances as JSON, read with all faults at once and written whole or not at all.

The format (docs/files.md) is written down as types in :mod:`edgealloc.files.schema`. Numbers are
doubles written with the shortest decimal that reads back to the same bits, so a round trip is exact.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, learning_numbers
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic, device_fields
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import MAX_MB, read_json, write_json

if TYPE_CHECKING:
    from edgealloc.files.schema import InstanceFile

__all__ = [
    "dict_from_instance",
    "instance_from_dict",
    "instance_hash",
    "load_instance",
    "save_instance",
]

_BOUND_NUMBERS = ("underfit_weight", "loss_range", "lipschitz", "curvature", "sparsity_weight", "confidence_delta")


def load_instance(path: str | Path, *, max_mb: float = MAX_MB) -> Instance:
    """Read an ``edgealloc-instance/1`` file of at most ``max_mb`` megabytes.

    Raises
    ------
    InputError
        Lists every fault of the file, with device name, field, value and what is allowed.
    """
    return instance_from_dict(read_json(path, max_mb), subject=str(path))


def save_instance(instance: Instance, path: str | Path) -> Path:
    """Write an ``edgealloc-instance/1`` file; it appears whole or not at all.

    Parameters
    ----------
    instance
        What to write; read back by :func:`edgealloc.load` it is equal.
    path
        Where to; an existing file is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    return write_json(dict_from_instance(instance), path)


def instance_hash(instance: Instance) -> str:
    """SHA-256 of the instance's JSON with sorted keys and no spaces, as 64 hexadecimal digits.

    Equal for equal instances, whatever the layout of the file they came from.
    """
    text = json.dumps(dict_from_instance(instance), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def instance_from_dict(data: Mapping[str, Any], *, subject: str = "instance") -> Instance:
    """An instance from a parsed file.

    Parameters
    ----------
    data
        The JSON object of an ``edgealloc-instance/1`` file.
    subject
        What the error message calls it, for example the path.

    Raises
    ------
    InputError
        Lists every fault: unknown and missing keys, wrong types, values out of range, and relations that
        do not hold. Devices with a fault in their structure are set aside while relations are checked.
    """
    from edgealloc.files.faults import require_format, structural_faults  # brings pydantic

    require_format("instance", data, subject)
    found = structural_faults("instance", data)
    faults = [fault for _, fault in found]
    if found:
        faults += _faults_beside(data, [path for path, _ in found])
    else:
        faults += _layout_faults(data)
    if faults:
        raise InputError(subject, faults)
    try:
        return _build(data)
    except InputError as error:
        raise InputError(subject, error.faults) from None


def dict_from_instance(instance: Instance) -> InstanceFile:
    """The JSON object of an instance; :func:`instance_from_dict` turns it back into an equal instance."""
    spec, k = instance.bound, instance.num_devices
    uplink: dict[str, Any] = {
        "bandwidth_hz": float(instance.bandwidth_hz),
        "noise_psd_dbm_per_hz": float(instance.noise_psd_dbm_per_hz),
    }
    if instance.num_subcarriers is not None:
        uplink["subcarriers"] = instance.num_subcarriers
    if instance.block_hz is not None:
        uplink["block_hz"] = float(instance.block_hz)
    bound: dict[str, Any] = {"underfit": spec.underfit, "pooling": spec.pooling}
    bound |= {key: float(getattr(spec, key)) for key in _BOUND_NUMBERS}
    bound |= _term(spec.underfit_curve or spec.underfit_logistic)
    columns: dict[str, Any] = {"name": instance.device_names}
    columns |= {key: getattr(instance, key).tolist() for key in device_fields()}
    columns["samples"] = [int(n) if n.is_integer() else n for n in columns["samples"]]
    columns["downlink_bps"] = [None if rate == np.inf else rate for rate in columns["downlink_bps"]]
    columns["keep_levels"] = [None if v is None else v.tolist() for v in instance.keep_levels or (None,) * k]
    if instance.adapter_options is not None:
        columns["adapter_options"] = [_menu(menu) for menu in instance.adapter_options]
    devices = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for device, term in zip(devices, instance.device_underfit or (None,) * k, strict=True):
        device |= _term(term)
    for device, cluster in zip(devices, instance.clusters or (None,) * k, strict=True):
        device |= {} if cluster is None else {"cluster": cluster}
    data: InstanceFile = {
        "format": "edgealloc-instance/1",
        "name": instance.name,
        "access": instance.access,
        "uplink": uplink,  # type: ignore[typeddict-item]
        "latency_s": float(instance.latency_s),
        "bound": bound,  # type: ignore[typeddict-item]
        "common_keep": bool(instance.common_keep),
        "selection": None
        if instance.exclusion_penalty is None
        else {"exclusion_penalty": float(instance.exclusion_penalty)},
        "devices": devices,  # type: ignore[typeddict-item]
    }
    if instance.learning is not None:
        data["learning"] = {"form": instance.learning.form, **learning_numbers(instance.learning)}  # type: ignore[typeddict-item]
    return data


def _term(term: UnderfitCurve | UnderfitLogistic | None) -> dict[str, Any]:
    """The key of a measured curve or a logistic term, of the bound or a device."""
    if isinstance(term, UnderfitCurve):
        return {"underfit_curve": {"keep": term.keep.tolist(), "value": term.value.tolist()}}
    return {} if term is None else {"underfit_logistic": asdict(term)}


def _curve_of(entry: Mapping[str, Any]) -> UnderfitCurve | None:
    curve = entry.get("underfit_curve")
    return None if curve is None else UnderfitCurve(curve["keep"], curve["value"])


def _logistic_of(entry: Mapping[str, Any]) -> UnderfitLogistic | None:
    term = entry.get("underfit_logistic")
    return None if term is None else UnderfitLogistic(**term)


def _menu(menu: tuple[AdapterOption, ...] | None) -> list[dict[str, Any]] | None:
    keys = ("label", "payload_lora_bits", "cycles_lora", "underfit_factor")
    more = ("download_bits", "cycles_fixed", "gain")  # rare, and absent where they are 0 or None
    if menu is None:
        return None
    return [
        {key: getattr(row, key) for key in keys} | {key: getattr(row, key) for key in more if getattr(row, key)}
        for row in menu
    ]


def _build(data: Mapping[str, Any]) -> Instance:
    """An instance from data whose structure was checked; relations are checked by the instance itself."""
    devices, uplink, bound = data["devices"], data["uplink"], data["bound"]
    columns: dict[str, Any] = {key: [d[key] for d in devices] for key in device_fields() if key != "downlink_bps"}
    rates = (d.get("downlink_bps") for d in devices)
    columns["downlink_bps"] = [np.inf if rate is None else rate for rate in rates]
    spec = BoundSpec(
        underfit=bound["underfit"],
        pooling=bound["pooling"],
        underfit_curve=_curve_of(bound),
        underfit_logistic=_logistic_of(bound),
        **{key: float(bound[key]) for key in _BOUND_NUMBERS},
    )
    menus = (d.get("adapter_options") for d in devices)
    selection, learning = data.get("selection"), data.get("learning")
    return Instance(
        name=data["name"],
        access=data["access"],
        bandwidth_hz=float(uplink["bandwidth_hz"]),
        noise_psd_dbm_per_hz=float(uplink["noise_psd_dbm_per_hz"]),
        latency_s=float(data["latency_s"]),
        bound=spec,
        **columns,
        device_names=tuple(d["name"] for d in devices),
        keep_levels=tuple(d.get("keep_levels") for d in devices),
        adapter_options=tuple(None if not m else tuple(AdapterOption(**row) for row in m) for m in menus),
        block_hz=uplink.get("block_hz"),
        common_keep=data.get("common_keep", False),
        exclusion_penalty=None if selection is None else float(selection["exclusion_penalty"]),
        learning=None if learning is None else LearningSpec(**learning),
        device_underfit=tuple(_curve_of(d) or _logistic_of(d) for d in devices),
        clusters=tuple(d.get("cluster") for d in devices),
    )


def _layout_faults(data: Mapping[str, Any]) -> list[Fault]:
    """Faults in what stands only where the access scheme needs it: sub-carriers and lists of gains."""
    access, carriers = data["access"], data["uplink"].get("subcarriers")
    faults = []
    if access == "ofdma" and carriers is None:
        return [Fault("uplink", "subcarriers", "(missing)", "this key is required for access ofdma")]
    if access != "ofdma" and carriers is not None:
        faults.append(Fault("uplink", "subcarriers", str(carriers), "absent unless access is ofdma"))
    for device in data["devices"]:
        gain, name = device["gain"], device["name"]
        if device.get("underfit_curve") is not None and device.get("underfit_logistic") is not None:
            faults.append(
                Fault(name, "underfit_logistic", "given", "null beside underfit_curve: one term a device")
            )
        if access != "ofdma" and isinstance(gain, list):
            faults.append(Fault(name, "gain", f"a list of {len(gain)}", f"one number for access {access}"))
        elif access == "ofdma" and not isinstance(gain, list):
            faults.append(Fault(name, "gain", repr(gain), f"a list of {carriers} numbers for access ofdma"))
        elif access == "ofdma" and len(gain) != carriers:
            allowed = f"a list of {carriers}, as uplink.subcarriers says"
            faults.append(Fault(name, "gain", f"a list of {len(gain)}", allowed))
    return faults


def _faults_beside(data: Mapping[str, Any], paths: list[tuple[str | int, ...]]) -> list[Fault]:
    """Faults of relations in a file whose structure is broken elsewhere, so that one run shows them all.

    Whatever has a structural fault is replaced by a sound stand-in. Nothing is returned where too little
    is left to be judged: access scheme or device list.
    """
    broken = {path[0] for path in paths if path}
    bad = {path[1] for path in paths if len(path) >= 2 and path[0] == "devices"}
    devices = data.get("devices")
    if not isinstance(devices, list) or ("devices",) in paths or "access" in broken or len(bad) == len(devices):
        return []
    sound = [device for i, device in enumerate(devices) if i not in bad]
    access = data["access"]
    rest: dict[str, Any] = {"name": "", "latency_s": 1.0, "selection": None, "common_keep": False, "uplink": {}}
    rest |= {key: value for key, value in data.items() if key not in broken and key in (*rest, "bound")}
    if "bound" not in rest:
        rest["bound"] = {key: getattr(BoundSpec(), key) for key in ("underfit", "pooling", *_BOUND_NUMBERS)}
    if not rest["uplink"]:
        rest["uplink"] = {"bandwidth_hz": 1.0, "noise_psd_dbm_per_hz": 0.0}
        gain = sound[0]["gain"]
        if access == "rb":
            rest["uplink"]["block_hz"] = 1.0
        elif access == "ofdma":
            rest["uplink"]["subcarriers"] = len(gain) if isinstance(gain, list) else 1
    faults = _layout_faults(rest | {"access": access, "devices": sound})
    if faults:
        return faults
    stand_in = sound[0]
    # Every device keeps its place, so that faults which name a position name the right one.
    mark = uuid.uuid4().hex  # in no name of the file
    padded = [device if i not in bad else stand_in | {"name": f"{mark}{i}"} for i, device in enumerate(devices)]
    try:
        _build(rest | {"access": access, "devices": padded})
    except InputError as error:
        return [fault for fault in error.faults if not fault.where.startswith(mark)]
    return []
