"""Whom a device sends to in a device-to-device network, as rows of its menu that carry their own gain.

A device broadcasts its adapter to the neighbours that it chose, at the rate of the worst of them. Of two sets with
the same worst neighbour the larger is never worse, so useful sets are nested by gain: the nearest one, two ...
That makes at most K - 1 rows a device. What the choice is worth is the underfitting factor (docs/related.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.data.forms import numbers
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray, IntArray

__all__ = ["nearest", "neighbour_menus"]


def nearest(gain: ArrayLike) -> IntArray:
    """For each device the others in the order in which it reaches them; the row ``m=3`` means the first three.

    Parameters
    ----------
    gain
        Channel power gains from k to j; the diagonal does not count. Shape [K, K].

    Returns
    -------
    array
        Devices by falling gain, of equal gains the lower number first. Shape [K, K - 1].

    Raises
    ------
    InputError
        For what is no square array of numbers.
    """
    faults: list[Fault] = []
    given = numbers(faults, "gain", gain)
    if given is not None and (given.ndim != 2 or given.shape[0] != given.shape[1]):
        faults.append(Fault("devices", "gain", f"shape {given.shape}", "shape [K, K]"))
    if given is None or faults:
        raise InputError("neighbours", faults)
    others = np.where(np.eye(len(given), dtype=bool), -np.inf, given)
    if np.any(np.isnan(others)):
        raise InputError("neighbours", [Fault("devices", "gain", "nan", "numbers")])
    return np.argsort(-others, axis=1, kind="stable")[:, :-1]


def neighbour_menus(
    gain: ArrayLike, underfit_factor: ArrayLike, payload_lora_bits: ArrayLike, cycles_lora: ArrayLike
) -> tuple[tuple[AdapterOption, ...], ...]:
    """Menus for :class:`edgealloc.Instance`: how many of its nearest neighbours each device sends to.

    Parameters
    ----------
    gain
        Channel power gains from k to j, >= 0; the diagonal does not count. Shape [K, K], K at least 2.
    underfit_factor
        phi(m) of m = 1 ... K - 1 neighbours, which multiplies a device's underfitting term, >= 0. Shape [K - 1],
        or [K, K - 1].
    payload_lora_bits, cycles_lora
        Of every row, in bit and cycles, as a number or per device. Shape [K].

    Returns
    -------
    tuple of tuple of AdapterOption
        Per device, rows ``m=1``, ``m=2``, ... from the best gain down, without those that another row beats: one
        with a gain not below it and a factor not above it. A neighbour of gain 0 cannot be reached.

    Raises
    ------
    InputError
        Names every device that reaches nobody, and what has a wrong shape or range.
    """
    faults: list[Fault] = []
    channel, factor, bits, work = (
        numbers(faults, "gain", gain),
        numbers(faults, "underfit_factor", underfit_factor),
        numbers(faults, "payload_lora_bits", payload_lora_bits),
        numbers(faults, "cycles_lora", cycles_lora),
    )
    if channel is None or factor is None or bits is None or work is None:
        raise InputError("neighbours", faults)
    count = len(channel) if channel.ndim else 0
    if count < 2 or channel.shape != (count, count):
        raise InputError(
            "neighbours", [Fault("devices", "gain", f"shape {channel.shape}", "shape [K, K], K >= 2")]
        )
    channel = np.where(np.eye(count, dtype=bool), 0.0, channel)
    each: tuple[tuple[int, ...], ...] = ((), (count,))
    for key, array, allowed in (
        ("underfit_factor", factor, ((count - 1,), (count, count - 1))),
        ("payload_lora_bits", bits, each),
        ("cycles_lora", work, each),
    ):
        if array.shape not in allowed:
            words = " or ".join(str(list(shape)) if shape else "a number" for shape in allowed)
            faults.append(Fault("devices", key, f"shape {array.shape}", words))
    for key, array in (("gain", channel), ("underfit_factor", factor)):
        if not np.all(np.isfinite(array) & (array >= 0.0)):
            faults.append(Fault("devices", key, "not all of them finite and >= 0", "numbers >= 0"))
    for k in np.flatnonzero(~np.any(channel > 0.0, axis=1)).tolist() if not faults else ():
        faults.append(Fault(f"device {k}", "gain", "0 to all others", "a neighbour that it reaches"))
    if faults:
        raise InputError("neighbours", faults)
    factors = np.broadcast_to(factor, (count, count - 1))
    bits, work = (np.broadcast_to(v, (count,)) for v in (bits, work))
    worst = np.take_along_axis(channel, nearest(channel), axis=1)
    return tuple(
        tuple(
            AdapterOption(
                f"m={m + 1}", float(bits[k]), float(work[k]), float(factors[k, m]), gain=float(worst[k, m])
            )
            for m in _useful(worst[k], factors[k])
        )
        for k in range(count)
    )


def _useful(gain: FloatArray, factor: FloatArray) -> list[int]:
    """Rows, by falling gain, that no other beats; of rows that are alike the first."""
    best, rows = np.inf, []
    for value in dict.fromkeys(gain[gain > 0.0].tolist()):  # the largest set of every gain, and any smaller one
        alike = np.flatnonzero(gain == value)
        m = int(alike[np.argmin(factor[alike])])
        if factor[m] < best:
            best = factor[m]
            rows.append(m)
    return rows
