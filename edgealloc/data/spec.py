"""The parts of an instance (curve, constants of the bound, menus), and what each field allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from edgealloc.data.forms import known_fields, number, numbers
from edgealloc.errors import Fault, InputError, shown, steers
from edgealloc.units import FloatArray, rebuilt

__all__ = ["Access", "AdapterOption", "BoundSpec", "Pooling", "Underfit", "UnderfitCurve", "UnderfitLogistic"]


MOST_SAMPLES = 1e9  # that a device may claim to train on: no device at the edge holds so many


Access = Literal["fdma", "ofdma", "rb"]


Underfit = Literal["inverse-keep", "perturbation", "curve", "logistic"]


Pooling = Literal["global", "device", "cluster"]


@known_fields
@dataclass(frozen=True, slots=True, eq=False)
class UnderfitCurve:
    """Underfitting term measured at some keep rates; between them it is interpolated by PCHIP.

    Parameters
    ----------
    keep
        Keep rates, strictly increasing, in (0, 1]. Shape [P], P >= 2.
    value
        Underfitting term at these rates, dimensionless, >= 0, non-increasing. Shape [P].

    Raises
    ------
    InputError
        For what is no number; whether the numbers are in range is for the instance to say.
    """

    keep: FloatArray
    value: FloatArray

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        for key in ("keep", "value"):
            array = numbers(faults, key, getattr(self, key), where="underfit_curve")
            if array is not None:
                object.__setattr__(self, key, read_only(array))
        if faults:
            raise InputError("underfit curve", faults)

    __reduce__ = rebuilt


@known_fields
@dataclass(frozen=True, slots=True)
class UnderfitLogistic:
    """Underfitting term ``1 / (1 + (s / half)^steepness)``, what is left to learn; logistic in log s.

    After R rounds the learning term ``D / (1 + (a R s^q)^alpha)`` is D times this one with ``steepness = q alpha``
    and ``half = (a R)^(-1/q)`` (docs/model.md, *What is minimised*).

    Parameters
    ----------
    half
        Keep rate at which the term is 1/2, in [1e-100, 1e100]; above 1 no keep rate gets there.
    steepness
        How fast it falls there, in (0, 1e9]; dimensionless.
    """

    half: float
    steepness: float

    def __post_init__(self) -> None:
        _as_floats(self, LOGISTIC_RULES)


@known_fields
@dataclass(frozen=True, slots=True)
class BoundSpec:
    """Constants of the generalisation bound (docs/model.md, *What is minimised*); all dimensionless.

    Parameters
    ----------
    underfit
        Underfitting term u(s): ``inverse-keep`` 1/s - 1, ``perturbation`` 1 - s^2, ``curve`` or
        ``logistic``.
    underfit_weight
        A >= 0, the weight of the underfitting term.
    pooling
        ``global``: one stability term for the pooled data; ``device``: one per device, averaged; ``cluster``: one
        per cluster of devices (:attr:`Instance.clusters`), averaged by their samples.
    loss_range, lipschitz, curvature, sparsity_weight
        C >= 0, eta >= 0, Lam > 0 and lam >= 0 of LoRA Dropout (arXiv 2404.09610, Theorem 4.4).
    confidence_delta
        delta in (0, 1); the bound holds with probability 1 - delta.
    underfit_curve
        The measured curve, for ``underfit="curve"`` only.
    underfit_logistic
        Half and steepness, for ``underfit="logistic"`` only.
    """

    underfit: Underfit = "inverse-keep"
    underfit_weight: float = 0.05
    pooling: Pooling = "global"
    loss_range: float = 1.0
    lipschitz: float = 1.0
    curvature: float = 0.05
    sparsity_weight: float = 0.5
    confidence_delta: float = 0.1
    underfit_curve: UnderfitCurve | None = None
    underfit_logistic: UnderfitLogistic | None = None

    def __post_init__(self) -> None:
        _as_floats(self, _BOUND_RULES)


@known_fields
@dataclass(frozen=True, slots=True)
class AdapterOption:
    """One row of a device's adapter menu (a LoRA rank, a quantisation).

    Parameters
    ----------
    label
        Name shown in results, for example ``r=8``.
    payload_lora_bits
        Bits of the whole adapter, replaces the device's ``payload_lora_bits``.
    cycles_lora
        Processor cycles of the whole adapter, replaces the device's ``cycles_lora``.
    underfit_factor
        Multiplies the device's underfitting term, dimensionless, >= 0.
    download_bits
        Bits that the device downloads beside its sub-adapter and never sends, as experts of others.
    cycles_fixed
        Processor cycles beside the device's ``cycles_fixed``, as those of experts that are used and not trained.
    gain
        Channel power gain, replaces the device's ``gain``; None: the device's. Not with OFDMA.
    """

    label: str
    payload_lora_bits: float
    cycles_lora: float
    underfit_factor: float = 1.0
    download_bits: float = 0.0
    cycles_fixed: float = 0.0
    gain: float | None = None

    def __post_init__(self) -> None:
        _as_floats(self, (*_ROW_RULES, "gain"))


def _as_floats(spec: Any, keys: Iterable[str]) -> None:
    """Numbers of any type as floats; what is none stays, for the instance to name."""
    for key in keys:
        value = number(getattr(spec, key))
        if value is not None:
            object.__setattr__(spec, key, value)


def read_only(values: Any) -> FloatArray:
    """A read-only float64 copy of the same shape, so that no caller can change what was checked."""
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def number_of(value: object) -> float:
    """A number as a float; nan for what is no number (a bool is none), or none that a double holds."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own, arrays and tensors as lists; whatever else as it is."""
    try:
        convert = getattr(value, "tolist", None)
        return convert() if callable(convert) else value
    except Exception:  # an object of a stranger's making, which whoever checks it refuses
        return value


# What a number or an array of numbers must satisfy: (test on it, words for the message).
Rule = tuple[Callable[[Any], Any], str]


POSITIVE: Rule = (lambda a: np.isfinite(a) & (a > 0), "a finite number > 0")


NON_NEGATIVE: Rule = (lambda a: np.isfinite(a) & (a >= 0), "a finite number >= 0")


LINK_RATE: Rule = (lambda a: a > 0, "a number > 0 (bit/s), or null for no downlink time")


KEEP_RATE: Rule = (lambda a: (a > 0) & (a <= 1), "a number in (0, 1]")


DEVICE_RULES: Mapping[str, Rule] = {
    "samples": POSITIVE,
    "gain": (NON_NEGATIVE[0], "a finite number >= 0, a ratio of powers; of a gain in dB it is 10**(dB/10)"),
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


_BOUND_RULES: Mapping[str, Rule] = {
    "underfit_weight": NON_NEGATIVE,
    "loss_range": NON_NEGATIVE,
    "lipschitz": NON_NEGATIVE,
    "sparsity_weight": NON_NEGATIVE,
    "curvature": POSITIVE,
    "confidence_delta": (lambda a: (a > 0) & (a < 1), "a number in (0, 1)"),
}


_LARGEST_TERM = 1e200  # of the bound: beyond, sums and slopes of such leave the range of doubles


# Beyond, powers and their inflection leave the range of doubles.
LOGISTIC_RULES: Mapping[str, Rule] = {
    "half": (lambda a: (a >= 1e-100) & (a <= 1e100), "a number in [1e-100, 1e100]"),
    "steepness": (lambda a: (a > 0) & (a <= 1e9), "a number in (0, 1e9]"),
}


_ROW_RULES: Mapping[str, Rule] = {
    "payload_lora_bits": POSITIVE,
    "cycles_lora": NON_NEGATIVE,
    "underfit_factor": NON_NEGATIVE,
    "download_bits": NON_NEGATIVE,
    "cycles_fixed": NON_NEGATIVE,
}


def check(faults: list[Fault], ok: bool | np.bool_, where: str, field_name: str, value: Any, allowed: str) -> None:
    """Add a fault unless all is well."""
    if not ok:
        faults.append(Fault(where, field_name, f"{value!r}", allowed))


def check_name(faults: list[Fault], where: str, field_name: str, name: object) -> None:
    """Add a fault for a name that is no text, or would steer the terminals and pictures that show it."""
    allowed = "text without line breaks, control characters and invisible marks"
    check(faults, isinstance(name, str) and not steers(name), where, field_name, name, allowed)


def range_faults(where: str, holder: Any, rules: Mapping[str, Rule]) -> list[Fault]:
    """The fields of a holder that are no numbers, or not in the range of their rule."""
    faults: list[Fault] = []
    for key, (test, allowed) in rules.items():
        given = getattr(holder, key)
        value = number(given)
        if value is None or not test(value):
            faults.append(Fault(where, key, shown(given), allowed))
    return faults


def _size_faults(spec: BoundSpec) -> list[Fault]:
    """Constants with which a term of the bound nears the end of the range of doubles."""
    c, eta, least = spec.loss_range, spec.lipschitz, spec.curvature
    faults: list[Fault] = []
    allowed = f"at most {_LARGEST_TERM}: the term would leave the range of doubles"
    check(faults, spec.underfit_weight <= _LARGEST_TERM, "bound", "underfit_weight", spec.underfit_weight, allowed)
    check(faults, c * c <= _LARGEST_TERM, "bound", "loss_range", c, f"one whose square is {allowed}")
    allowed = f"one with which 24 loss_range lipschitz^2 / curvature is {allowed}"
    name, given = ("lipschitz", eta) if eta > 1.0 / least else ("curvature", least)
    check(faults, 24.0 * c * eta * eta / least <= _LARGEST_TERM, "bound", name, given, allowed)
    return faults


def bound_faults(spec: Any) -> list[Fault]:
    """What is wrong with the constants of a bound."""
    if not isinstance(spec, BoundSpec):
        return [Fault("instance", "bound", f"{spec!r}", "an edgealloc.BoundSpec")]
    faults: list[Fault] = []
    for key, kinds in (("underfit", get_args(Underfit)), ("pooling", get_args(Pooling))):
        kind = getattr(spec, key)
        check(faults, isinstance(kind, str) and kind in kinds, "bound", key, kind, ", ".join(kinds))
    faults += range_faults("bound", spec, _BOUND_RULES) or _size_faults(spec)
    faults += _logistic_faults(spec)
    curve: Any = spec.underfit_curve
    if curve is not None and not isinstance(curve, UnderfitCurve):
        check(faults, False, "bound", "underfit_curve", curve, "an edgealloc.UnderfitCurve, or None")
        return faults
    if spec.underfit == "curve" and curve is None:
        check(faults, False, "bound", "underfit_curve", None, "keep and value lists when underfit is curve")
    if curve is not None:
        allowed = "null unless underfit is curve"
        check(faults, spec.underfit == "curve", "bound", "underfit_curve", "given", allowed)
        faults += term_faults("bound", curve)
    return faults


def term_faults(where: str, term: UnderfitCurve | UnderfitLogistic) -> list[Fault]:
    """What is wrong with the numbers of a measured curve or a logistic term, of the bound or a device."""
    faults: list[Fault] = []
    if isinstance(term, UnderfitLogistic):
        return [
            Fault(f.where, f"underfit_logistic.{f.field}", f.value, f.allowed)
            for f in range_faults(where, term, LOGISTIC_RULES)
        ]
    keep, value = term.keep, term.value
    same = keep.ndim == 1 and keep.shape == value.shape and len(keep) >= 2
    shapes = f"shapes {keep.shape}, {value.shape}"
    check(faults, same, where, "underfit_curve", shapes, "two lists of one length >= 2")
    if same:
        keep_ok = bool(np.all(np.diff(keep) > 0) and keep[0] > 0 and keep[-1] <= 1)
        value_ok = bool(np.all(value >= 0) and np.all(np.diff(value) <= 0) and value[0] < np.inf)
        check(faults, keep_ok, where, "underfit_curve.keep", keep.tolist(), "increasing, in (0, 1]")
        allowed = "finite, >= 0, not increasing"
        check(faults, value_ok, where, "underfit_curve.value", value.tolist(), allowed)
    return faults


def _logistic_faults(spec: BoundSpec) -> list[Fault]:
    """What is wrong with half and steepness, and whether they are there when they are asked for."""
    faults: list[Fault] = []
    term: Any = spec.underfit_logistic
    asked = spec.underfit == "logistic"
    if term is not None and not isinstance(term, UnderfitLogistic):
        check(faults, False, "bound", "underfit_logistic", term, "an edgealloc.UnderfitLogistic, or None")
    elif term is None:
        check(
            faults, not asked, "bound", "underfit_logistic", None, "half and steepness when underfit is logistic"
        )
    else:
        check(faults, asked, "bound", "underfit_logistic", "given", "null unless underfit is logistic")
        faults += term_faults("bound", term)
    return faults


def menu_faults(name: str, menu: tuple[AdapterOption, ...]) -> list[Fault]:
    """What is wrong with the adapter menu of the device of that name."""
    faults: list[Fault] = []
    labels = [str(row.label) for row in menu]
    check(faults, len(set(labels)) == len(labels), name, "adapter_options", labels, "one row per label")
    for row in menu:
        where = f"{name}, adapter option {row.label!r}"
        check_name(faults, where, "label", row.label)
        check(faults, row.label != "", where, "label", row.label, "a name")
        faults += range_faults(where, row, _ROW_RULES)
        if row.gain is not None:
            faults += range_faults(where, row, {"gain": POSITIVE})
    return faults


def device_fields() -> Mapping[str, str]:
    """Names of the per-device arrays and what each allows; the file schema is checked against it."""
    return {key: allowed for key, (_, allowed) in DEVICE_RULES.items()}
