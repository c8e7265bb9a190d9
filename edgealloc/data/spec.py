"""The parts of an instance (curve, constants of the bound, menus), and what each field allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgealloc.errors import Fault, steers
from edgealloc.units import FloatArray, rebuilt

__all__ = ["Access", "AdapterOption", "BoundSpec", "Pooling", "Underfit", "UnderfitCurve"]


MOST_SAMPLES = 1e9  # that a device may claim to train on: no device at the edge holds so many


Access = Literal["fdma", "ofdma", "rb"]


Underfit = Literal["inverse-keep", "perturbation", "curve"]


Pooling = Literal["global", "device"]


@dataclass(frozen=True, slots=True, eq=False)
class UnderfitCurve:
    """Underfitting term measured at some keep rates; between them it is interpolated by PCHIP.

    Parameters
    ----------
    keep
        Keep rates, strictly increasing, in (0, 1]. Shape [P], P >= 2.
    value
        Underfitting term at these rates, dimensionless, >= 0, non-increasing. Shape [P].
    """

    keep: FloatArray
    value: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", read_only(self.keep))
        object.__setattr__(self, "value", read_only(self.value))

    __reduce__ = rebuilt


@dataclass(frozen=True, slots=True)
class BoundSpec:
    """Constants of the generalisation bound (docs/model.md, *What is minimised*); all dimensionless.

    Parameters
    ----------
    underfit
        Underfitting term u(s): ``inverse-keep`` 1/s - 1, ``perturbation`` 1 - s^2, or ``curve``.
    underfit_weight
        A >= 0, the weight of the underfitting term.
    pooling
        ``global``: one stability term for the pooled data; ``device``: one per device, averaged.
    loss_range, lipschitz, curvature, sparsity_weight
        C >= 0, eta >= 0, Lam > 0 and lam >= 0 of LoRA Dropout (arXiv 2404.09610, Theorem 4.4).
    confidence_delta
        delta in (0, 1); the bound holds with probability 1 - delta.
    underfit_curve
        The measured curve, for ``underfit="curve"`` only.
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
    """

    label: str
    payload_lora_bits: float
    cycles_lora: float
    underfit_factor: float = 1.0


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


# What a per-device array must satisfy: (test on the array, words for the message).
Rule = tuple[Callable[[FloatArray], Any], str]


POSITIVE: Rule = (lambda a: np.isfinite(a) & (a > 0), "a finite number > 0")


NON_NEGATIVE: Rule = (lambda a: np.isfinite(a) & (a >= 0), "a finite number >= 0")


LINK_RATE: Rule = (lambda a: a > 0, "a number > 0 (bit/s), or null for no downlink time")


KEEP_RATE: Rule = (lambda a: (a > 0) & (a <= 1), "a number in (0, 1]")


def check(faults: list[Fault], ok: bool | np.bool_, where: str, field_name: str, value: Any, allowed: str) -> None:
    """Add a fault unless all is well."""
    if not ok:
        faults.append(Fault(where, field_name, f"{value!r}", allowed))


def check_name(faults: list[Fault], where: str, field_name: str, name: object) -> None:
    """Add a fault for a name that is no text, or would steer the terminals and pictures that show it."""
    allowed = "text without line breaks, control characters and invisible marks"
    check(faults, isinstance(name, str) and not steers(name), where, field_name, name, allowed)


def bound_faults(spec: BoundSpec) -> list[Fault]:
    """What is wrong with the constants of a bound."""
    faults: list[Fault] = []
    kinds = ("inverse-keep", "perturbation", "curve")
    check(faults, spec.underfit in kinds, "bound", "underfit", spec.underfit, ", ".join(kinds))
    check(faults, spec.pooling in ("global", "device"), "bound", "pooling", spec.pooling, "global, device")
    for key in ("underfit_weight", "loss_range", "lipschitz", "sparsity_weight"):
        value = getattr(spec, key)
        check(faults, np.isfinite(value) and value >= 0, "bound", key, value, "a finite number >= 0")
    curvature, delta = spec.curvature, spec.confidence_delta
    check(
        faults,
        np.isfinite(curvature) and curvature > 0,
        "bound",
        "curvature",
        curvature,
        "a finite number > 0",
    )
    check(faults, 0 < delta < 1, "bound", "confidence_delta", delta, "a number in (0, 1)")
    curve = spec.underfit_curve
    if spec.underfit == "curve" and curve is None:
        check(faults, False, "bound", "underfit_curve", None, "keep and value lists when underfit is curve")
    if curve is not None:
        check(
            faults,
            spec.underfit == "curve",
            "bound",
            "underfit_curve",
            "given",
            "null unless underfit is curve",
        )
        same = curve.keep.ndim == 1 and curve.keep.shape == curve.value.shape and len(curve.keep) >= 2
        shapes = f"shapes {curve.keep.shape}, {curve.value.shape}"
        check(faults, same, "bound", "underfit_curve", shapes, "two lists of one length >= 2")
        if same:
            keep_ok = bool(np.all(np.diff(curve.keep) > 0) and curve.keep[0] > 0 and curve.keep[-1] <= 1)
            value_ok = bool(
                np.all(curve.value >= 0) and np.all(np.diff(curve.value) <= 0) and curve.value[0] < np.inf
            )
            check(faults, keep_ok, "bound", "underfit_curve.keep", curve.keep.tolist(), "increasing, in (0, 1]")
            check(
                faults,
                value_ok,
                "bound",
                "underfit_curve.value",
                curve.value.tolist(),
                "finite, >= 0, not increasing",
            )
    return faults


def menu_faults(name: str, menu: tuple[AdapterOption, ...]) -> list[Fault]:
    """What is wrong with the adapter menu of the device of that name."""
    faults: list[Fault] = []
    labels = [row.label for row in menu]
    check(faults, len(set(labels)) == len(labels), name, "adapter_options", labels, "one row per label")
    for row in menu:
        where = f"{name}, adapter option {row.label!r}"
        check_name(faults, where, "label", row.label)
        bits, cycles, factor = row.payload_lora_bits, row.cycles_lora, row.underfit_factor
        check(faults, np.isfinite(bits) and bits > 0, where, "payload_lora_bits", bits, "a finite number > 0")
        check(faults, np.isfinite(cycles) and cycles >= 0, where, "cycles_lora", cycles, "a finite number >= 0")
        check(
            faults,
            np.isfinite(factor) and factor >= 0,
            where,
            "underfit_factor",
            factor,
            "a finite number >= 0",
        )
    return faults
