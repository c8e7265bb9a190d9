"""What an instance has per device beside plain numbers (levels, menus), and how many devices there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from edgealloc.data.forms import number, numbers, per_device
from edgealloc.data.spec import (
    AdapterOption,
    BoundSpec,
    UnderfitCurve,
    UnderfitLogistic,
    check,
    read_only,
    term_faults,
)
from edgealloc.errors import Fault
from edgealloc.units import LN2, FloatArray, dbm_to_w

__all__ = ["ENTRIES", "cluster_faults", "device_count", "link_faults", "same_values", "underfit_faults"]

_LEAST_J = 1e-300  # of an upload: what is next to the end of doubles cannot be told from nothing

_MOST_CLUSTER = 2**53 - 1  # beyond, doubles skip whole numbers: two clusters would be one


def device_count(faults: list[Fault], arrays: Mapping[str, FloatArray | None], named: int) -> int:
    """K by the gain of shape [K] or [K, M], else by arrays [K] or the names; a transposed gain is a fault."""
    gain = arrays["gain"]
    others = {len(array) for key, array in arrays.items() if key != "gain" and array is not None and array.ndim}
    k = others.pop() if len(others) == 1 else named
    if gain is None or gain.ndim not in (1, 2):
        return k
    if gain.ndim == 2 and k == gain.shape[1] != gain.shape[0]:
        allowed = f"[K, M] with K = {k}; it looks transposed: give gain.T"
        faults.append(Fault("devices", "gain", f"shape {gain.shape}", allowed))
        return k
    return len(gain)


def _levels_of(faults: list[Fault], given: Any, names: tuple[str, ...]) -> tuple[FloatArray | None, ...] | None:
    """Allowed keep rates of each device, shape [L], rising and each once; None where no device has any."""
    entries = per_device(faults, "keep_levels", given, "one list of keep rates (or None)") or []
    if any(number(entry) is not None for entry in entries):
        allowed = "one list per device, or None; for the same rates everywhere: [[0.25, 0.5, 1.0]] * K"
        faults.append(Fault("devices", "keep_levels", f"a flat list of {len(entries)} numbers", allowed))
        return None
    levels = []
    for i, entry in enumerate(entries):
        rates = None if entry is None else numbers(faults, f"keep_levels[{i}]", entry, where=_at(names, i))
        levels.append(None if rates is None else read_only(np.unique(rates)))
    return None if all(v is None for v in levels) else tuple(levels)


def _menus_of(
    faults: list[Fault], given: Any, names: tuple[str, ...]
) -> tuple[tuple[AdapterOption, ...] | None, ...] | None:
    """Adapter menu of each device; None where no device has one."""
    allowed = "one sequence of AdapterOption per device, or None; for the same menu everywhere: [menu] * K"
    menus: list[tuple[AdapterOption, ...] | None] = []
    for i, menu in enumerate(per_device(faults, "adapter_options", given, "one menu (or None)") or []):
        rows = () if menu is None else tuple(menu) if isinstance(menu, list | tuple) else (menu,)
        flat = menu is not None and not isinstance(menu, list | tuple)
        if flat or not all(isinstance(row, AdapterOption) for row in rows):
            faults.append(Fault(_at(names, i), "adapter_options", f"{menu!r}", allowed))
        menus.append(rows or None)
    return None if all(v is None for v in menus) else tuple(menus)


def _terms_of(
    faults: list[Fault], given: Any, names: tuple[str, ...]
) -> tuple[UnderfitCurve | UnderfitLogistic | None, ...] | None:
    """Underfitting term of each device; None where no device has one of its own."""
    terms = per_device(faults, "device_underfit", given, "one term (or None)") or []
    allowed = "an edgealloc.UnderfitCurve, an edgealloc.UnderfitLogistic, or None"
    for i, term in enumerate(terms):
        if term is not None and not isinstance(term, UnderfitCurve | UnderfitLogistic):
            faults.append(Fault(_at(names, i), "device_underfit", f"{term!r}", allowed))
    return None if all(term is None for term in terms) else tuple(terms)


def _clusters_of(faults: list[Fault], given: Any, names: tuple[str, ...]) -> tuple[int | None, ...] | None:
    """The cluster of each device; None where no device has one."""
    clusters: list[int | None] = []
    for i, entry in enumerate(per_device(faults, "clusters", given, "one cluster (or None)") or []):
        value = None if entry is None else number(entry)
        if entry is not None and (value is None or not 0.0 <= value <= _MOST_CLUSTER or not value.is_integer()):
            allowed = "a whole number from 0 to 2**53 - 1, or None"
            faults.append(Fault(_at(names, i), "cluster", f"{entry!r}", allowed))
            value = None
        clusters.append(None if value is None else int(value))
    return None if all(c is None for c in clusters) else tuple(clusters)


# Fields with an entry per device that is no number, and how what was given is read.
ENTRIES: Mapping[str, Callable[[list[Fault], Any, tuple[str, ...]], tuple[Any, ...] | None]] = {
    "keep_levels": _levels_of,
    "adapter_options": _menus_of,
    "device_underfit": _terms_of,
    "clusters": _clusters_of,
}


def cluster_faults(inst: Any) -> list[Fault]:
    """Devices without a cluster where the stability term is pooled by cluster, and one keep rate for all there."""
    faults: list[Fault] = []
    if inst.bound.pooling == "cluster":
        clusters = inst.clusters or (None,) * len(inst.device_names)
        for name, cluster in zip(inst.device_names, clusters, strict=True):
            check(faults, cluster is not None, name, "cluster", None, "a whole number >= 0: pooling is cluster")
        check(faults, not inst.common_keep, "instance", "common_keep", True, "false where pooling is cluster")
    return faults


def link_faults(inst: Any) -> list[Fault]:
    """Channels so good, or payloads so small, that the energy of an upload has no digits in doubles.

    It is at least N0 ln 2 / g joules a bit, here of all that a device or a row of its menu may send; other fields
    are right already.
    """
    faults: list[Fault] = []
    joule = float(dbm_to_w(inst.noise_psd_dbm_per_hz)) * LN2
    allowed = "a smaller one, or a larger payload: an upload has to take at least 1e-300 J"
    best, most = inst.gain.reshape(len(inst.device_names), -1).max(axis=1), inst.keep_max
    menus = inst.adapter_options
    with np.errstate(divide="ignore"):
        little = joule / best * (inst.payload_fixed_bits + inst.payload_lora_bits * most) < _LEAST_J
    for k in np.flatnonzero(little).tolist():
        if menus is None or menus[k] is None:  # or its rows are asked below
            faults.append(Fault(inst.device_names[k], "gain", f"{best[k]}", allowed))
    for k, menu in enumerate(menus or ()):
        for row in menu or ():
            gain = float(best[k]) if row.gain is None else row.gain
            sent = float(inst.payload_fixed_bits[k] + row.payload_lora_bits * most[k])
            where = f"{inst.device_names[k]}, adapter option {row.label!r}"
            check(faults, not gain > 0.0 or joule / gain * sent >= _LEAST_J, where, "gain", gain, allowed)
    return faults


def underfit_faults(inst: Any) -> list[Fault]:
    """What is wrong with own underfitting terms, and keep rates outside of measured curves, of an instance."""
    faults: list[Fault] = []
    terms = inst.device_underfit or (None,) * len(inst.device_names)
    for i, (name, term) in enumerate(zip(inst.device_names, terms, strict=True)):
        wrong = [] if term is None else term_faults(name, term)
        faults += wrong
        curve = inst.bound.underfit_curve if term is None else term
        if wrong or not isinstance(curve, UnderfitCurve):
            continue
        allowed = f"within the curve's keep range [{curve.keep[0]}, {curve.keep[-1]}]"
        check(faults, inst.keep_min[i] >= curve.keep[0], name, "keep_min", float(inst.keep_min[i]), allowed)
        check(faults, inst.keep_max[i] <= curve.keep[-1], name, "keep_max", float(inst.keep_max[i]), allowed)
    if inst.device_underfit is not None:
        allowed = "false where devices have underfitting terms of their own"
        check(faults, not inst.common_keep, "instance", "common_keep", True, allowed)
    return faults


def _at(names: tuple[str, ...], i: int) -> str:
    return names[i] if i < len(names) else f"device {i}"


def same_values(a: Any, b: Any) -> bool:
    """Whether two values of a field are equal, arrays and what holds arrays by their numbers."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and np.array_equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_values(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, BoundSpec | UnderfitCurve) and type(a) is type(b):
        return all(same_values(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)
