"""One allocation instance: devices, adapters, budgets, channel and bound constants, as arrays.

An :class:`Instance` is data only. It is checked once, when it is built, and every fault is reported
together. Key names, units and meaning follow the file format ``edgealloc-instance/1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

import numpy as np

from edgealloc.data.display import Displayed
from edgealloc.data.entries import ENTRIES, cluster_faults, device_count, link_faults, same_values, underfit_faults
from edgealloc.data.forms import default_names, known_fields, many, names_of, number, numbers
from edgealloc.data.frame import fields_from
from edgealloc.data.learning import LearningSpec, learning_faults
from edgealloc.data.plausible import Remark, remarks_on
from edgealloc.data.spec import (
    DEVICE_RULES,
    NON_NEGATIVE,
    POSITIVE,
    Access,
    AdapterOption,
    BoundSpec,
    Rule,
    UnderfitCurve,
    UnderfitLogistic,
    bound_faults,
    check,
    check_name,
    menu_faults,
    read_only,
)
from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray, dbm_to_w, rebuilt

__all__ = ["Instance"]

# What a single number must satisfy, and which block of the file it is in; the last two may be absent.
_NUMBERS: Mapping[str, tuple[str, Rule]] = {
    "bandwidth_hz": ("uplink", POSITIVE),
    "noise_psd_dbm_per_hz": ("uplink", (lambda a: (a > -400) & (a < 100), "a number in (-400, 100)")),
    "latency_s": ("instance", POSITIVE),
    "block_hz": ("uplink", POSITIVE),
    "exclusion_penalty": ("selection", NON_NEGATIVE),
}


@known_fields
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Instance(Displayed):
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
    learning
        The learning curve of a whole run, for :func:`edgealloc.plan_run`; a single round does not use it.
    device_underfit
        Underfitting terms of single devices in place of the bound's, K of them, or None.
    clusters
        The cluster of each device, whole numbers of any names, K of them, or None; for ``pooling="cluster"``.
    assumed
        Fields that nobody gave and :meth:`from_frame` took typical values for; not in files, and not compared.

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
    learning: LearningSpec | None = None
    device_underfit: tuple[UnderfitCurve | UnderfitLogistic | None, ...] | None = None
    clusters: tuple[int | None, ...] | None = None
    assumed: tuple[str, ...] = field(default=(), compare=False)
    _noise_w: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        names = () if self.device_names is None else names_of(faults, self.device_names)
        rows = names or default_names(max(map(many, (getattr(self, key) for key in DEVICE_RULES))))
        arrays = {key: numbers(faults, key, getattr(self, key), rows) for key in DEVICE_RULES}
        k = device_count(faults, arrays, len(names))
        names = names or default_names(k)
        changes: dict[str, Any] = {"device_names": names}
        for key, array in arrays.items():
            if array is None:
                continue
            changes[key] = read_only(np.full(k, float(array)) if array.ndim == 0 and key != "gain" else array)
            if key != "gain" and changes[key].shape != (k,):
                faults.append(Fault("devices", key, f"an array of shape {array.shape}", f"shape ({k},)"))
        for key, read in ENTRIES.items():
            given = getattr(self, key)
            changes[key] = None if given is None else read(faults, given, names)
        for key, (where, (test, allowed)) in _NUMBERS.items():
            given = getattr(self, key)
            if given is None and key in ("block_hz", "exclusion_penalty"):
                continue
            changes[key] = number(given)
            check(faults, changes[key] is not None and bool(test(changes[key])), where, key, given, allowed)
        for key, value in changes.items():
            object.__setattr__(self, key, value)
        faults += _form_faults(self) + bound_faults(self.bound)
        faults += [] if self.learning is None else learning_faults(self.learning)
        if not faults:  # the per-device checks index by device, so shapes must be right first
            faults += _device_faults(self)
        if faults:
            raise InputError(f"instance {self.name!r}", faults)
        object.__setattr__(self, "_noise_w", float(dbm_to_w(self.noise_psd_dbm_per_hz)))

    __reduce__ = rebuilt

    @classmethod
    def from_frame(
        cls, frame: Any, *, gain: Any = None, gain_db: Any = None, ignore: Iterable[str] = (), **scalars: Any
    ) -> Instance:
        """An instance from a table of devices, channel gains and single values (docs/own_data.md).

        Columns and values have the names of the fields, or those with another unit: ``power_dbm``,
        ``bandwidth_mhz``, ``frequency_ghz``, ``energy_mj``, ``path_loss_db`` (the table is
        :data:`edgealloc.tables.suffixes.NAMES`). A column ``name``, ``device`` or ``id`` names the devices. The
        constants of the bound go by their names too. What is not given is typical and listed in ``assumed``.

        Parameters
        ----------
        frame
            A data frame, a mapping of sequences, a structured array, or the path of a .csv file; a row per device.
        gain, gain_db
            Channel power gain, as a ratio or in dB: shape [K], or [K, M] for OFDMA. An array, or the path of a
            .npy, .npz, .mat or .csv file (``gains.mat:H`` for one of several arrays). Rows with names are put in
            the order of the devices.
        ignore
            Columns that are none of the instance.
        **scalars
            What is the same for every device, ``bandwidth_hz`` or another unit of it in any case. Without
            ``access`` it is OFDMA for gains [K, M], resource blocks with ``block_hz``, otherwise FDMA.

        Returns
        -------
        Instance
            Checked like any other.

        Raises
        ------
        InputError
            Lists every fault: unknown columns with the nearest name, what is given twice, units, values, shapes.
        """
        return cls(**fields_from(frame, gain, gain_db, ignore, scalars))

    def check(self) -> list[Remark]:
        """Values that are allowed and look like a mistake of unit; mostly none.

        ``solve`` and ``load`` warn of them (:class:`~edgealloc.errors.PlausibilityWarning`).
        """
        return remarks_on(self)

    def assumed_text(self) -> str:
        """The fields in ``assumed`` with their values, in one line; constants of the bound as ``bound``."""
        values = ((key, getattr(self, key)) for key in self.assumed)
        return ", ".join(
            key if isinstance(value, BoundSpec) else f"{key} {np.max(value):g}" for key, value in values
        )

    def bound_of(self, device: int) -> BoundSpec:
        """The bound as it is for one device.

        Parameters
        ----------
        device
            Its place among the devices, from 0 on.

        Returns
        -------
        BoundSpec
            With the device's own underfitting term where it has one.
        """
        term = None if self.device_underfit is None else self.device_underfit[device]
        if isinstance(term, UnderfitCurve):
            return replace(self.bound, underfit="curve", underfit_curve=term, underfit_logistic=None)
        if isinstance(term, UnderfitLogistic):
            return replace(self.bound, underfit="logistic", underfit_curve=None, underfit_logistic=term)
        return self.bound

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
        changes.setdefault("assumed", tuple(key for key in self.assumed if key not in changes))
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
        changes: dict[str, Any] = {key: getattr(self, key)[index] for key in DEVICE_RULES}
        changes["device_names"] = tuple(self.device_names[i] for i in index)
        for key in ENTRIES:
            given = getattr(self, key)
            changes[key] = None if given is None else tuple(given[i] for i in index)
        return replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instance):
            return NotImplemented
        return all(same_values(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)


def _form_faults(inst: Instance) -> list[Fault]:
    """What is wrong with the form of an instance, before devices are looked at one by one."""
    faults: list[Fault] = []
    access: Any = inst.access
    known = isinstance(access, str) and access in get_args(Access)
    check(faults, known, "instance", "access", access, ", ".join(get_args(Access)))
    check_name(faults, "instance", "name", inst.name)
    flag = isinstance(inst.common_keep, bool | np.bool_)
    check(faults, flag, "instance", "common_keep", inst.common_keep, "True or False")
    dimensions = 2 if access == "ofdma" else 1
    shape = "[K, M] (one gain per sub-carrier)" if dimensions == 2 else "[K] (one gain per device)"
    gain = inst.gain
    if isinstance(gain, np.ndarray) and (gain.ndim != dimensions or gain.size == 0):
        faults.append(Fault("devices", "gain", f"shape {gain.shape}", f"shape {shape}, at least one device"))
    if access == "rb":
        width, band = inst.block_hz, inst.bandwidth_hz
        ok = width is not None and (band is None or width <= band)
        check(faults, ok, "uplink", "block_hz", width, "a number in (0, bandwidth_hz] for access rb")
    elif inst.block_hz is not None:
        check(faults, False, "uplink", "block_hz", inst.block_hz, "absent unless access is rb")
    k = len(inst.samples) if isinstance(inst.samples, np.ndarray) and inst.samples.ndim else 0
    for key in ("device_names", *ENTRIES):
        entry = getattr(inst, key)
        if k and entry is not None and len(entry) != k:
            check(faults, False, "devices", key, f"{len(entry)} entries", f"one per device ({k})")
    return faults


def _device_faults(inst: Instance) -> list[Fault]:
    faults: list[Fault] = []
    names = inst.device_names

    def report(bad: Any, key: str, values: Any, allowed: str) -> None:
        for i in np.flatnonzero(bad):
            faults.append(Fault(names[i], key, f"{values[i]}", allowed))

    for key, (test, allowed) in DEVICE_RULES.items():
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
    faults += underfit_faults(inst) + cluster_faults(inst)
    for i, levels in enumerate(inst.keep_levels or ()):
        if levels is not None:
            inside = len(levels) > 0 and inst.keep_min[i] <= levels[0] and levels[-1] <= inst.keep_max[i]
            check(faults, inside, names[i], "keep_levels", levels.tolist(), "numbers in [keep_min, keep_max]")
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            faults += menu_faults(names[i], menu)
            for row in menu if inst.access == "ofdma" else ():
                where = f"{names[i]}, adapter option {row.label!r}"
                check(faults, row.gain is None, where, "gain", row.gain, "None for access ofdma")
    return faults or link_faults(inst)  # which needs all else to be right
