"""Environments of TR 38.901 and TR 36.814: heights, frequencies, ranges, and what lies outside their validity."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray

__all__ = ["ENVIRONMENTS", "Environment", "OutsideValidity", "breakpoint_m", "environment"]


# TR 38.901 writes c = 3.0e8 m/s in the notes to Table 7.4.1-1, and its breakpoints use that value.
LIGHT_SPEED_M_PER_S = 3.0e8


class OutsideValidity(UserWarning):
    """A propagation formula is used outside the range in which its source fitted it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One deployment type: its layout constants and the ranges of its formulas.

    Parameters
    ----------
    name
        ``uma``, ``umi``, ``rma`` (TR 38.901) or ``macro`` (TR 36.814).
    radius_m
        A typical cell radius in m, chosen by us: the usual site spacing, rounded.
    drop_min_m
        Least 2D distance of a device in m (Tables 7.2-1 and 7.2-3).
    bs_height_m
        Nominal height of the base station in m.
    shadowing_db
        Standard deviation in dB: LOS, LOS beyond the breakpoint, NLOS (Table 7.4.1-1).
    rician_k_db
        Mean Rician factor of a LOS link in dB (Table 7.5-6).
    bs_height_range_m, ue_height_range_m, frequency_range_hz, distance_range_m
        Where the formulas were fitted, in m and Hz (Table 7.4.1-1).
    distance_max_nlos_m
        Where the NLOS formula ends, in m.
    """

    name: str
    radius_m: float
    drop_min_m: float
    bs_height_m: float
    shadowing_db: tuple[float, float, float]
    rician_k_db: float
    bs_height_range_m: tuple[float, float]
    ue_height_range_m: tuple[float, float] = (1.5, 22.5)
    frequency_range_hz: tuple[float, float] = (0.5e9, 100e9)
    distance_range_m: tuple[float, float] = (10.0, 5e3)
    distance_max_nlos_m: float = 5e3


UMA = Environment("uma", 500.0, 35.0, 25.0, (4.0, 4.0, 6.0), 9.0, (25.0, 25.0))


UMI = Environment("umi", 200.0, 10.0, 10.0, (4.0, 4.0, 7.82), 9.0, (10.0, 10.0))


RMA = Environment(
    "rma", 1700.0, 35.0, 35.0, (4.0, 6.0, 8.0), 7.0, (10.0, 150.0), (1.0, 10.0), (0.5e9, 30e9), (10.0, 10e3)
)


# One line for every link, fitted at 2 GHz: no LOS state, 8 dB of shadowing (TR 36.814, A.2.1.1).
MACRO = Environment(
    "macro", 500.0, 35.0, 32.0, (8.0, 8.0, 8.0), 9.0, (0.0, np.inf), (0.0, np.inf), (2e9, 2e9), (35.0, np.inf)
)


ENVIRONMENTS: Mapping[str, Environment] = MappingProxyType({e.name: e for e in (UMA, UMI, RMA, MACRO)})


def environment(name: str) -> Environment:
    """The environment of a name in :data:`ENVIRONMENTS`.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    if name not in ENVIRONMENTS:
        raise InputError("scenario", [Fault("cell", "environment", repr(name), ", ".join(ENVIRONMENTS))])
    return ENVIRONMENTS[name]


def positive_numbers(field: str, value: ArrayLike) -> FloatArray:
    """The value as an array of any shape.

    Raises
    ------
    InputError
        Unless all its numbers are finite and > 0.
    """
    array = np.asarray(value, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array > 0.0)):
        raise InputError("path loss", [Fault("link", field, f"{np.min(array)}", "finite numbers > 0")])
    return array


def warn_outside(env: Environment, field: str, value: FloatArray, low: float, high: float) -> None:
    """Warn the caller of numbers, an array of any shape, outside the range in which the path loss was fitted."""
    outside = int(np.count_nonzero((value < low) | (value > high)))
    if outside:
        warnings.warn(
            f"{field}: {outside} of {value.size} outside {low:g}..{high:g}, where the {env.name} path loss "
            "was fitted",
            OutsideValidity,
            stacklevel=4,
        )


def link_inputs(
    env: Environment,
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike,
    bs_height_m: ArrayLike | None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Check what a formula needs; return 2D and 3D distance, carrier, device and mast height, of any shapes."""
    distance = positive_numbers("distance_m", distance_m)
    carrier = positive_numbers("frequency_hz", frequency_hz)
    h_ue = positive_numbers("ue_height_m", ue_height_m)
    h_bs = positive_numbers("bs_height_m", env.bs_height_m if bs_height_m is None else bs_height_m)
    near, far = env.distance_range_m
    limit = np.where(line_of_sight, far, env.distance_max_nlos_m)
    warn_outside(env, "distance_m", np.where(distance > limit, np.inf, distance), near, far)
    warn_outside(env, "frequency_hz", carrier, *env.frequency_range_hz)
    warn_outside(env, "ue_height_m", h_ue, *env.ue_height_range_m)
    warn_outside(env, "bs_height_m", h_bs, *env.bs_height_range_m)
    return distance, np.hypot(distance, h_bs - h_ue), carrier, h_ue, h_bs


def breakpoint_m(
    env: Environment,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike = 1.5,
    bs_height_m: ArrayLike | None = None,
    effective_height_m: ArrayLike = 1.0,
) -> FloatArray:
    """Breakpoint distance, beyond which LOS loss falls with the fourth power [m].

    TR 38.901 Table 7.4.1-1, note 1 (UMa, UMi: d' = 4 (h_BS - h_E)(h_UT - h_E) f/c) and note 5 (RMa:
    d = 2 pi h_BS h_UT f/c). `effective_height_m` is h_E: 1 m in UMi, and in UMa for devices below 13 m;
    see `effective_height_uma_m` for higher ones. InputError where a height does not exceed h_E.
    """
    carrier = positive_numbers("frequency_hz", frequency_hz)
    h_ue = positive_numbers("ue_height_m", ue_height_m)
    h_bs = positive_numbers("bs_height_m", env.bs_height_m if bs_height_m is None else bs_height_m)
    if env.name == "rma":
        return np.asarray(2.0 * np.pi * h_bs * h_ue * carrier / LIGHT_SPEED_M_PER_S)
    h_e = np.asarray(effective_height_m, dtype=np.float64)
    above_ground = positive_numbers("ue_height_m - effective_height_m", h_ue - h_e)
    mast = positive_numbers("bs_height_m - effective_height_m", h_bs - h_e)
    return np.asarray(4.0 * mast * above_ground * carrier / LIGHT_SPEED_M_PER_S)
