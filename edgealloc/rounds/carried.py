"""What is carried over: the allocation of the last round to this one, and what a begun round holds fast.

Used as in docs/online.md: each round starts from the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray

__all__ = ["carried", "held"]


def carried(old: Instance, last: Allocation, new: Instance) -> Allocation | None:
    """The last round's allocation for this round's devices, matched by name; a start, not feasible as such.

    Who left returns the spectrum; who is new gets an equal share of a band, no sub-carrier, and the middle of the
    others' keep rates. None where the uplink changed its kind or its number of sub-carriers.
    """
    if old.access != new.access or old.num_subcarriers != new.num_subcarriers:
        return None
    if old.device_names == new.device_names:
        return last
    place = {name: i for i, name in enumerate(old.device_names)}
    at = np.array([place.get(name, -1) for name in new.device_names])
    known = at >= 0
    if not known.any():
        return None
    on = last.selected
    middle = float(np.median(last.keep[on])) if on.any() else 0.5

    def taken(values: FloatArray, default: FloatArray | float) -> FloatArray:
        return np.where(known, values[at], default)

    keep = np.clip(taken(last.keep, middle), new.keep_min, new.keep_max)
    fields: dict[str, FloatArray] = {"power_w": taken(last.power_w, new.power_max_w)} if last.owner is None else {}
    if last.owner is not None:
        back = np.full(old.num_devices + 1, -1)
        back[at[known]] = np.flatnonzero(known)
        owner = back[last.owner]  # -1 reads the last entry, which is -1
        fields = {"owner": owner, "power_w": np.where(owner >= 0, last.power_w, 0.0)}
    elif last.bandwidth_hz is not None:
        band = taken(last.bandwidth_hz, new.bandwidth_hz / new.num_devices)
        if new.block_hz is None:
            band = band * min(1.0, new.bandwidth_hz / band.sum())
        fields["bandwidth_hz"] = band
    return Allocation(
        keep=keep,
        freq_hz=taken(last.freq_hz, new.freq_max_hz),
        selected=np.where(known, on[at], True),
        option=np.where(known, last.option[at], -1 if new.adapter_options is None else 0),
        **fields,  # type: ignore[arg-type]
    )


def held(instance: Instance, settings: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> Instance | None:
    """A round in which some devices go on with what they have begun: masks and clock stay, spectrum may change.

    Masks follow from the keep rate and the row of the menu. The clock stays because part of the work is done at
    it: a faster one would come too late, a slower one would not undo the energy that is spent.

    Parameters
    ----------
    instance
        The round.
    settings
        What was planned, by device id: ``keep``, ``freq_hz`` and, where there is a menu, ``adapter_option``.
    names
        Devices of the instance to be held.

    Returns
    -------
    Instance or None
        None where one keep rate for all is asked for and a device cannot have the one that is held.
    """
    low, high = instance.keep_min.copy(), instance.keep_max.copy()
    slowest, fastest = instance.freq_min_hz.copy(), instance.freq_max_hz.copy()
    levels, menus = instance.keep_levels, instance.adapter_options
    kept_levels, kept_menus = list(levels or ()), list(menus or ())
    place = {name: k for k, name in enumerate(instance.device_names)}
    for name in names:
        k, keep = place[name], float(settings[name]["keep"])
        low[k] = high[k] = keep
        slowest[k] = fastest[k] = float(settings[name]["freq_hz"])
        if levels is not None and levels[k] is not None:
            kept_levels[k] = np.array([keep])
        if menus is not None and (menu := menus[k]) is not None:
            kept_menus[k] = tuple(row for row in menu if row.label == settings[name]["adapter_option"])
    if instance.common_keep and low.max() > high.min():
        return None
    changes: dict[str, Any] = {"keep_min": low, "keep_max": high, "freq_min_hz": slowest, "freq_max_hz": fastest}
    if levels is not None:
        changes["keep_levels"] = tuple(kept_levels)
    if menus is not None:
        changes["adapter_options"] = tuple(kept_menus)
    return instance.with_changes(**changes)
