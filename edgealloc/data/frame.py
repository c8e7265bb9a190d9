"""From columns of one's own to the fields of an instance: units by name, gains from files, typical values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgealloc.data.forms import number, numbers
from edgealloc.data.spec import DEVICE_RULES, BoundSpec
from edgealloc.errors import Fault, InputError, did_you_mean
from edgealloc.tables.arrays import Stored, read_array
from edgealloc.tables.columns import columns_of, row_names
from edgealloc.tables.suffixes import NAMES

__all__ = ["TYPICAL", "fields_from"]

TYPICAL: Mapping[str, Any] = MappingProxyType(
    {
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": 30.0,
        "samples": 500.0,
        "power_max_w": 0.2,
        "energy_j": 5.0,
        "energy_static_j": 0.0,
        "payload_fixed_bits": 0.0,
        "payload_lora_bits": 4718592.0,
        "cycles_fixed": 9.06e9,
        "cycles_lora": 4.53e7,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2.4e9,
        "capacitance": 1e-28,
        "downlink_bps": np.inf,
        "keep_min": 0.05,
        "keep_max": 1.0,
    }
)
"""What is taken for a field that is not given: thermal noise, and a phone of the random cells
(:mod:`edgealloc.scenario.hardware`) that trains a RoBERTa-base adapter of rank 8 on 512 tokens a round."""

_SINGLE = ("bandwidth_hz", "noise_psd_dbm_per_hz", "latency_s", "block_hz", "exclusion_penalty")
_BOUND = tuple(f.name for f in fields(BoundSpec))
_OTHERS = (
    "name",
    "access",
    "bound",
    "device_names",
    "keep_levels",
    "adapter_options",
    "common_keep",
    "device_underfit",
)
_DENSITY_DBM = (-180.0, -160.0)  # a power in a band of 100 Hz or more is above the upper end


def fields_from(
    frame: Any, gain: Any, gain_db: Any, ignore: Iterable[str], scalars: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of an instance from columns and single values.

    Parameters
    ----------
    frame, gain, gain_db, ignore, scalars
        As for :meth:`edgealloc.data.instance.Instance.from_frame`.

    Returns
    -------
    dict
        Fields by name; ``assumed`` names those that are typical values. Ranges are for the instance to check.

    Raises
    ------
    InputError
        Lists columns and names that are none, fields given twice, values that are no numbers.
    """
    columns, names = columns_of(frame)
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    given: list[tuple[str, Any]] = [(title, column) for title, column in columns.items() if title not in ignored]
    given += scalars.items()
    given += [(key, value) for key, value in (("gain", gain), ("gain_db", gain_db)) if value is not None]
    faults: list[Fault] = []
    found: dict[str, Any] = {} if names is None else {"device_names": names}
    source: dict[str, str] = {}
    for title, value in given:
        field = _field_of(faults, title, value)
        if field is None:
            continue
        if field in source:
            faults.append(Fault("columns", title, "given", f"once: {source[field]} is {field} too"))
        source[field] = title
        found[field] = _converted(faults, title, field, value, names)
    for field in _SINGLE:
        if isinstance(found.get(field), np.ndarray):
            found[field] = _single(faults, field, found[field])
    if "gain" not in source:
        allowed = "gain= or gain_db=, or a column gain, gain_db, path_loss_db"
        faults.append(Fault("columns", "gain", "(missing)", allowed))
    if "bandwidth_hz" not in source:
        faults.append(Fault("columns", "bandwidth_hz", "(missing)", "bandwidth_hz=, bandwidth_mhz=, ..."))
    bound = {key: found.pop(key) for key in _BOUND if key in found}
    if bound and "bound" in found:
        faults.append(Fault("columns", "bound", "given", f"either a BoundSpec or its fields ({', '.join(bound)})"))
    if faults:
        raise InputError("own data", faults)
    if bound:
        found["bound"] = BoundSpec(**bound)
    return _completed(found, "own data" if not isinstance(frame, str | Path) else Path(frame).stem)


def _completed(found: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields with an access scheme that fits them and typical values for what is missing."""
    gain = found["gain"]
    if gain.ndim == 2 and 1 in gain.shape and found.get("access") != "ofdma":
        found["gain"] = gain = gain.ravel()  # MATLAB has no vectors
    scheme = "ofdma" if gain.ndim == 2 else "rb" if found.get("block_hz") is not None else "fdma"
    typical = {**TYPICAL, "bound": BoundSpec()}
    missing = {key: value for key, value in typical.items() if key not in found}
    return {"name": name, "access": scheme} | found | missing | {"assumed": tuple(missing)}


def _field_of(faults: list[Fault], title: str, value: Any) -> str | None:
    """The field that a name is, or None and a fault."""
    plain = (*DEVICE_RULES, *_SINGLE, *_BOUND, *_OTHERS)
    if title in plain:
        return title
    if title in NAMES:
        return NAMES[title][0]
    if title == "noise_dbm":
        density = number(value)
        if density is not None and _DENSITY_DBM[0] <= density <= _DENSITY_DBM[1]:
            return "noise_psd_dbm_per_hz"
        allowed = "noise_dbm_per_hz=; of a power in dBm in the whole band it is noise - 10*log10(bandwidth_hz)"
        faults.append(Fault("columns", title, f"{value!r}", allowed))
        return None
    advice = did_you_mean(title, (*plain, *NAMES), "fields are those of an Instance, also in other units")
    faults.append(Fault("columns", title, "given", f"not a field; {advice} To leave it out: ignore=[{title!r}]"))
    return None


def _converted(faults: list[Fault], title: str, field: str, value: Any, names: list[Any] | None) -> Any:
    """The value in the unit of its field; numbers as an array."""
    if field in _OTHERS or field in _BOUND:
        return value
    if value is None and field in ("block_hz", "exclusion_penalty"):
        return None
    path = field == "gain" and isinstance(value, str | Path)
    stored = read_array(value) if path else Stored(value, row_names(value))
    labels = [str(name) for name in names or ()]
    array = numbers(faults, title, stored.values, labels)
    if array is None:
        return np.zeros(0)
    if stored.names is not None and names is not None and array.ndim:
        array = _in_order(faults, title, array, [str(name) for name in stored.names], labels)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # the instance refuses what comes out
        return array if title not in NAMES else np.asarray(NAMES[title][1](array))


def _in_order(faults: list[Fault], title: str, array: Any, rows: list[str], names: list[str]) -> Any:
    """Rows that have names, in the order of the devices."""
    if rows == names:  # the instance says it where a name is there twice
        return array
    if sorted(rows) != sorted(names) or len(set(rows)) < len(rows):
        strange = sorted(set(rows) ^ set(names))[:3]
        allowed = (
            f"one row per device, by its name; in one of the two only: {', '.join(strange) or '(a name twice)'}"
        )
        faults.append(Fault("columns", title, f"{len(rows)} rows with names", allowed))
        return array
    place = {name: i for i, name in enumerate(rows)}
    return array[[place[name] for name in names]]


def _single(faults: list[Fault], field: str, array: Any) -> Any:
    """The one value of a column that says the same for every device."""
    if not array.size:
        return None  # it holds no numbers, which has been said
    if np.all(array == array.flat[0]):
        return float(array.flat[0])
    faults.append(Fault("columns", field, f"{array.size} different values", "one value for all devices"))
    return None
