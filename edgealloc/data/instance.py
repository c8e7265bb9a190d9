"""One allocation instance: devices, adapters, budgets, channel and bound constants, as arrays.

An :class:`Instance` is data only. It is checked once, when it is built, and every fault is reported
together. Key names, units and meaning follow the file format ``edgealloc-instance/1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from edgealloc.data.spec import (
    KEEP_RATE,
    LINK_RATE,
    NON_NEGATIVE,
    POSITIVE,
    Access,
    AdapterOption,
    BoundSpec,
    Rule,
    UnderfitCurve,
    bound_faults,
    check,
    check_name,
    menu_faults,
    read_only,
)
from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray, dbm_to_w, rebuilt

__all__ = ["Instance"]

_DEVICE_RULES: dict[str, Rule] = {
    "samples": POSITIVE,
    "gain": NON_NEGATIVE,
    "power_max_w": POSITIVE,
    "energy_j": POSITIVE,
    "energy_static_j": NON_NEGATIVE,
    "payload_fixed_bits": NON_NEGATIVE,
    "payload_lora_bits": POSITIVE,
    "cycles_fixed": NON_NEGATIVE,
    "cycles_lora": NON_NEGATIVE,
    "freq_min_hz": POSITIVE,
    "freq_max_hz": POSITIVE,
    "capacitance": NON_NEGATIVE,
    "downlink_bps": LINK_RATE,
    "keep_min": KEEP_RATE,
    "keep_max": KEEP_RATE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """An allocation instance: K devices share an uplink before a round deadline.

    Arrays are copied and made read-only. Scalars given for a per-device array are broadcast.

    Parameters
    ----------
    name
        Name of the instance; like all names without line breaks, control characters and invisible marks.
    access
        ``fdma`` (continuous bandwidth), ``rb`` (whole resource blocks) or ``ofdma`` (sub-carriers).
    bandwidth_hz, noise_psd_dbm_per_hz
        Uplink bandwidth B in Hz; noise power spectral density N0 in dBm/Hz.
    latency_s
        Round deadline T in s.
    bound
        Constants of the generalisation bound.
    samples
        Local training samples n_k. Shape [K].
    gain
        Channel power gain, dimensionless. Shape [K] for FDMA and blocks, [K, M] for OFDMA.
    power_max_w, energy_j, energy_static_j
        Transmit power limit in W; energy budget and its static part in J. Shape [K].
    payload_fixed_bits, payload_lora_bits
        D0 and D1 of the upload D(s) = D0 + D1 s, in bit. Shape [K].
    cycles_fixed, cycles_lora
        W0 and W1 of the local update W(s) = W0 + W1 s, in processor cycles. Shape [K].
    freq_min_hz, freq_max_hz, capacitance
        Processor frequency range in Hz; effective switched capacitance kappa in J s^2/cycle^3 (the
        energy of W cycles at frequency f is kappa f^2 W). Shape [K].
    downlink_bps
        Downlink rate in bit/s, ``inf`` where the download takes no time. Shape [K].
    keep_min, keep_max
        Range of the keep rate s_k. Shape [K].
    device_names
        Names; ``dev-0000`` ... when empty.
    keep_levels
        Allowed keep rates per device, K arrays of any length [L], or None for a device that may take any rate.
    adapter_options
        Adapter menu per device, or None for a device without a menu.
    block_hz
        Width of a resource block in Hz, for ``rb`` only.
    common_keep
        All devices share one keep rate.
    exclusion_penalty
        Not None: devices may be left out at this penalty (docs/model.md, *What is minimised*).

    Raises
    ------
    InputError
        Lists every fault, with device name, field, value and what is allowed.
    """

    name: str
    access: Access
    bandwidth_hz: float
    noise_psd_dbm_per_hz: float
    latency_s: float
    bound: BoundSpec
    samples: FloatArray
    gain: FloatArray
    power_max_w: FloatArray
    energy_j: FloatArray
    energy_static_j: FloatArray
    payload_fixed_bits: FloatArray
    payload_lora_bits: FloatArray
    cycles_fixed: FloatArray
    cycles_lora: FloatArray
    freq_min_hz: FloatArray
    freq_max_hz: FloatArray
    capacitance: FloatArray
    downlink_bps: FloatArray
    keep_min: FloatArray
    keep_max: FloatArray
    device_names: tuple[str, ...] = ()
    keep_levels: tuple[FloatArray | None, ...] | None = None
    adapter_options: tuple[tuple[AdapterOption, ...] | None, ...] | None = None
    block_hz: float | None = None
    common_keep: bool = False
    exclusion_penalty: float | None = None
    _noise_w: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        gain = np.asarray(self.gain, dtype=np.float64)
        k = gain.shape[0] if gain.ndim in (1, 2) else 0
        for key in _DEVICE_RULES:
            array = np.asarray(getattr(self, key), dtype=np.float64)
            if key != "gain" and array.ndim == 0:
                array = np.full(k, float(array))
            object.__setattr__(self, key, read_only(array))
            if key != "gain" and array.shape != (k,):
                faults.append(Fault("devices", key, f"an array of shape {array.shape}", f"shape ({k},)"))
        if not self.device_names:
            width = max(4, len(str(max(k - 1, 0))))
            names = tuple(f"dev-{i:0{width}d}" for i in range(k))
            object.__setattr__(self, "device_names", names)
        if self.keep_levels is not None:
            levels = tuple(None if v is None else read_only(np.unique(v)) for v in self.keep_levels)
            object.__setattr__(self, "keep_levels", None if all(v is None for v in levels) else levels)
        if self.adapter_options is not None:
            menus = tuple(None if not v else tuple(v) for v in self.adapter_options)
            object.__setattr__(self, "adapter_options", None if all(v is None for v in menus) else menus)
        faults += _scalar_faults(self) + bound_faults(self.bound)
        if not faults:  # the per-device checks index by device, so shapes must be right first
            faults += _device_faults(self)
        if faults:
            raise InputError(f"instance {self.name!r}", faults)
        object.__setattr__(self, "_noise_w", float(dbm_to_w(self.noise_psd_dbm_per_hz)))

    __reduce__ = rebuilt

    @property
    def num_devices(self) -> int:
        """K."""
        return len(self.samples)

    @property
    def num_subcarriers(self) -> int | None:
        """M for OFDMA, otherwise None."""
        return int(self.gain.shape[1]) if self.access == "ofdma" else None

    @property
    def noise_psd_w_per_hz(self) -> float:
        """N0 in W/Hz."""
        return self._noise_w

    @property
    def total_samples(self) -> float:
        """n, the sum of the local samples."""
        return float(self.samples.sum())

    @property
    def weights(self) -> FloatArray:
        """Aggregation weights w_k = n_k / n. Shape [K], sum 1."""
        return np.asarray(self.samples / self.samples.sum())

    def with_changes(self, **changes: Any) -> Instance:
        """A copy with some fields replaced, checked like a new instance.

        Parameters
        ----------
        **changes
            Fields by name, in the units and shapes of :class:`Instance`.

        Returns
        -------
        Instance
            The copy; of the same name unless one is given.

        Raises
        ------
        InputError
            Lists every fault of the copy.
        """
        changes.setdefault("name", self.name)
        return replace(self, **changes)

    def take(self, index: Any) -> Instance:
        """The instance restricted to some devices, or with its devices in another order.

        Parameters
        ----------
        index
            What numpy takes for an index of the K devices: indices, a mask of shape [K], a slice.

        Returns
        -------
        Instance
            All budgets, the bandwidth too, as they were; the aggregation weights are those of the devices taken.

        Raises
        ------
        InputError
            When nobody is taken, or somebody twice.
        """
        index = np.arange(self.num_devices)[index]
        changes: dict[str, Any] = {key: getattr(self, key)[index] for key in _DEVICE_RULES}
        changes["device_names"] = tuple(self.device_names[i] for i in index)
        if self.keep_levels is not None:
            changes["keep_levels"] = tuple(self.keep_levels[i] for i in index)
        if self.adapter_options is not None:
            changes["adapter_options"] = tuple(self.adapter_options[i] for i in index)
        return replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is not None and b is not None and np.array_equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, BoundSpec | UnderfitCurve) and type(a) is type(b):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


def _scalar_faults(inst: Instance) -> list[Fault]:
    faults: list[Fault] = []
    check(faults, inst.access in ("fdma", "ofdma", "rb"), "instance", "access", inst.access, "fdma, ofdma, rb")
    check_name(faults, "instance", "name", inst.name)
    dimensions = 2 if inst.access == "ofdma" else 1
    shape = "[K, M] (one gain per sub-carrier)" if dimensions == 2 else "[K] (one gain per device)"
    gain_ok = inst.gain.ndim == dimensions and inst.gain.size > 0
    check(faults, gain_ok, "devices", "gain", f"shape {inst.gain.shape}", f"shape {shape}, at least one device")
    for key, value in {"bandwidth_hz": inst.bandwidth_hz, "latency_s": inst.latency_s}.items():
        where = "uplink" if key == "bandwidth_hz" else "instance"
        check(faults, np.isfinite(value) and value > 0, where, key, value, "a finite number > 0")
    noise = inst.noise_psd_dbm_per_hz
    check(faults, -400 < noise < 100, "uplink", "noise_psd_dbm_per_hz", noise, "a number in (-400, 100)")
    if inst.access == "rb":
        width = inst.block_hz
        ok = width is not None and np.isfinite(width) and 0 < width <= inst.bandwidth_hz
        check(faults, ok, "uplink", "block_hz", width, "a number in (0, bandwidth_hz] for access rb")
    elif inst.block_hz is not None:
        check(faults, False, "uplink", "block_hz", inst.block_hz, "absent unless access is rb")
    penalty = inst.exclusion_penalty
    ok = penalty is None or (np.isfinite(penalty) and penalty >= 0)
    check(faults, ok, "selection", "exclusion_penalty", penalty, "a finite number >= 0")
    k = inst.gain.shape[0] if inst.gain.ndim else 0
    for key in ("device_names", "keep_levels", "adapter_options"):
        entry = getattr(inst, key)
        if entry is not None and len(entry) != k:
            check(faults, False, "devices", key, f"{len(entry)} entries", f"one per device ({k})")
    return faults


def _device_faults(inst: Instance) -> list[Fault]:
    faults: list[Fault] = []
    names = inst.device_names

    def report(bad: Any, key: str, values: Any, allowed: str) -> None:
        for i in np.flatnonzero(bad):
            faults.append(Fault(names[i], key, f"{values[i]}", allowed))

    for key, (test, allowed) in _DEVICE_RULES.items():
        array = getattr(inst, key)
        ok = np.asarray(test(array))
        if array.ndim == 2:
            for i, m in np.argwhere(~ok):
                faults.append(Fault(names[i], f"{key}[{m}]", f"{array[i, m]}", allowed))
        else:
            report(~ok, key, array, allowed)
    report(inst.freq_min_hz > inst.freq_max_hz, "freq_min_hz", inst.freq_min_hz, "at most freq_max_hz")
    report(inst.keep_min > inst.keep_max, "keep_min", inst.keep_min, "at most keep_max")
    seen: set[str] = set()
    for i, name in enumerate(names):
        check_name(faults, f"device {i}", "name", name)
        if name == "" or str(name) in seen:
            faults.append(Fault(f"device {i}", "name", repr(name), "a non-empty name, different for each device"))
        seen.add(str(name))
    if inst.common_keep and inst.exclusion_penalty is None:
        report(
            inst.keep_min > inst.keep_max.min(), "keep_min", inst.keep_min, "at most every keep_max (common_keep)"
        )
    curve = inst.bound.underfit_curve
    if curve is not None:
        allowed = f"within the curve's keep range [{curve.keep[0]}, {curve.keep[-1]}]"
        report(inst.keep_min < curve.keep[0], "keep_min", inst.keep_min, allowed)
        report(inst.keep_max > curve.keep[-1], "keep_max", inst.keep_max, allowed)
    for i, levels in enumerate(inst.keep_levels or ()):
        if levels is not None:
            inside = len(levels) > 0 and inst.keep_min[i] <= levels[0] and levels[-1] <= inst.keep_max[i]
            check(faults, inside, names[i], "keep_levels", levels.tolist(), "numbers in [keep_min, keep_max]")
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            faults += menu_faults(names[i], menu)
    return faults


def device_fields() -> Mapping[str, str]:
    """Names of the per-device arrays and what each allows; the file schema is checked against it."""
    return {key: allowed for key, (_, allowed) in _DEVICE_RULES.items()}
