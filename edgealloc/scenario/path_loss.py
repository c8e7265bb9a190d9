"""Large-scale propagation: path loss, line of sight, shadowing.

The models are those of 3GPP TR 38.901 (V16.1.0; the rows used here are unchanged since V14): Table 7.4.1-1
(path loss, shadowing, validity ranges), Table 7.4.2-1 (line-of-sight probability), Table 7.2-1 and 7.2-3
(layout). Beside them stands the older macro-cell line 128.1 + 37.6 log10(d/km) of TR 36.814, annex
A.2.1.1, and its predecessors, still the commonest choice in papers on federated learning.

Distances are horizontal (2D) and in metres, losses in dB and positive. Every function broadcasts, so a
million devices are one call. A value outside the range in which 3GPP fitted a formula draws a warning that
names the field; a value that makes the formula meaningless (a height of zero, a negative distance) raises.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray

__all__ = [
    "ENVIRONMENTS",
    "Environment",
    "OutsideValidity",
    "breakpoint_m",
    "draw_line_of_sight",
    "draw_shadowing_db",
    "effective_height_uma_m",
    "environment",
    "line_of_sight_probability",
    "path_loss_db",
    "path_loss_macro_db",
    "path_loss_rma_db",
    "path_loss_uma_db",
    "path_loss_umi_db",
    "shadowing_sigma_db",
]

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


_UMA = Environment("uma", 500.0, 35.0, 25.0, (4.0, 4.0, 6.0), 9.0, (25.0, 25.0))
_UMI = Environment("umi", 200.0, 10.0, 10.0, (4.0, 4.0, 7.82), 9.0, (10.0, 10.0))
_RMA = Environment(
    "rma", 1700.0, 35.0, 35.0, (4.0, 6.0, 8.0), 7.0, (10.0, 150.0), (1.0, 10.0), (0.5e9, 30e9), (10.0, 10e3)
)
# One line for every link, fitted at 2 GHz: no LOS state, 8 dB of shadowing (TR 36.814, A.2.1.1).
_MACRO = Environment(
    "macro", 500.0, 35.0, 32.0, (8.0, 8.0, 8.0), 9.0, (0.0, np.inf), (0.0, np.inf), (2e9, 2e9), (35.0, np.inf)
)
ENVIRONMENTS: Mapping[str, Environment] = MappingProxyType({e.name: e for e in (_UMA, _UMI, _RMA, _MACRO)})


def environment(name: str) -> Environment:
    """The environment of that name; InputError lists the known ones."""
    if name not in ENVIRONMENTS:
        raise InputError("scenario", [Fault("cell", "environment", repr(name), ", ".join(ENVIRONMENTS))])
    return ENVIRONMENTS[name]


def _positive(field: str, value: ArrayLike) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if not np.all(np.isfinite(array) & (array > 0.0)):
        raise InputError("path loss", [Fault("link", field, f"{np.min(array)}", "finite numbers > 0")])
    return array


def _warn_outside(env: Environment, field: str, value: FloatArray, low: float, high: float) -> None:
    outside = int(np.count_nonzero((value < low) | (value > high)))
    if outside:
        warnings.warn(
            f"{field}: {outside} of {value.size} outside {low:g}..{high:g}, where the {env.name} path loss "
            "was fitted",
            OutsideValidity,
            stacklevel=4,
        )


def _inputs(
    env: Environment,
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike,
    bs_height_m: ArrayLike | None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Check what a formula needs; return 2D distance, 3D distance, carrier, device height, mast height."""
    distance = _positive("distance_m", distance_m)
    carrier = _positive("frequency_hz", frequency_hz)
    h_ue = _positive("ue_height_m", ue_height_m)
    h_bs = _positive("bs_height_m", env.bs_height_m if bs_height_m is None else bs_height_m)
    near, far = env.distance_range_m
    limit = np.where(line_of_sight, far, env.distance_max_nlos_m)
    _warn_outside(env, "distance_m", np.where(distance > limit, np.inf, distance), near, far)
    _warn_outside(env, "frequency_hz", carrier, *env.frequency_range_hz)
    _warn_outside(env, "ue_height_m", h_ue, *env.ue_height_range_m)
    _warn_outside(env, "bs_height_m", h_bs, *env.bs_height_range_m)
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
    carrier = _positive("frequency_hz", frequency_hz)
    h_ue = _positive("ue_height_m", ue_height_m)
    h_bs = _positive("bs_height_m", env.bs_height_m if bs_height_m is None else bs_height_m)
    if env.name == "rma":
        return np.asarray(2.0 * np.pi * h_bs * h_ue * carrier / LIGHT_SPEED_M_PER_S)
    h_e = np.asarray(effective_height_m, dtype=np.float64)
    above_ground = _positive("ue_height_m - effective_height_m", h_ue - h_e)
    mast = _positive("bs_height_m - effective_height_m", h_bs - h_e)
    return np.asarray(4.0 * mast * above_ground * carrier / LIGHT_SPEED_M_PER_S)


def path_loss_uma_db(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike = 1.5,
    bs_height_m: ArrayLike | None = None,
    effective_height_m: ArrayLike = 1.0,
) -> FloatArray:
    """Urban macro path loss [dB]; TR 38.901 Table 7.4.1-1, UMa.

    LOS: 28 + 22 lg d3D + 20 lg f up to the breakpoint, then
    28 + 40 lg d3D + 20 lg f - 9 lg(d'^2 + (h_BS - h_UT)^2);
    NLOS: the larger of LOS and 13.54 + 39.08 lg d3D + 20 lg f - 0.6 (h_UT - 1.5); f in GHz, d in m.
    """
    env = _UMA
    d, d3, f, h_ue, h_bs = _inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
    bp = breakpoint_m(env, f, h_ue, h_bs, effective_height_m)
    carrier_db = 20.0 * np.log10(f / 1e9)
    near = 28.0 + 22.0 * np.log10(d3) + carrier_db
    far = 28.0 + 40.0 * np.log10(d3) + carrier_db - 9.0 * np.log10(bp**2 + (h_bs - h_ue) ** 2)
    los = np.where(d <= bp, near, far)
    nlos = 13.54 + 39.08 * np.log10(d3) + carrier_db - 0.6 * (h_ue - 1.5)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def path_loss_umi_db(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike = 1.5,
    bs_height_m: ArrayLike | None = None,
) -> FloatArray:
    """Urban micro, street canyon, path loss [dB]; TR 38.901 Table 7.4.1-1, UMi.

    LOS: 32.4 + 21 lg d3D + 20 lg f up to the breakpoint, then
    32.4 + 40 lg d3D + 20 lg f - 9.5 lg(d'^2 + (h_BS - h_UT)^2);
    NLOS: the larger of LOS and 22.4 + 35.3 lg d3D + 21.3 lg f - 0.3 (h_UT - 1.5); f in GHz, d in m.
    """
    env = _UMI
    d, d3, f, h_ue, h_bs = _inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
    bp = breakpoint_m(env, f, h_ue, h_bs)
    lg_f = np.log10(f / 1e9)
    near = 32.4 + 21.0 * np.log10(d3) + 20.0 * lg_f
    far = 32.4 + 40.0 * np.log10(d3) + 20.0 * lg_f - 9.5 * np.log10(bp**2 + (h_bs - h_ue) ** 2)
    los = np.where(d <= bp, near, far)
    nlos = 22.4 + 35.3 * np.log10(d3) + 21.3 * lg_f - 0.3 * (h_ue - 1.5)
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def path_loss_rma_db(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike = 1.5,
    bs_height_m: ArrayLike | None = None,
    building_height_m: float = 5.0,
    street_width_m: float = 20.0,
) -> FloatArray:
    """Rural macro path loss [dB]; TR 38.901 Table 7.4.1-1, RMa (h = 5 m, W = 20 m by default, as there).

    LOS near: 20 lg(40 pi d3D f/3) + min(0.03 h^1.72, 10) lg d3D - min(0.044 h^1.72, 14.77)
    + 0.002 lg(h) d3D; far: that value at d_BP + 40 lg(d3D/d_BP).
    NLOS: the larger of LOS and 161.04 - 7.1 lg W + 7.5 lg h - (24.37 - 3.7 (h/h_BS)^2) lg h_BS
    + (43.42 - 3.1 lg h_BS)(lg d3D - 3) + 20 lg f - (3.2 lg(11.75 h_UT)^2 - 4.97); f in GHz, lengths in m.
    """
    env = _RMA
    d, d3, f, h_ue, h_bs = _inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
    h, width = _positive("building_height_m", building_height_m), _positive("street_width_m", street_width_m)
    bp = breakpoint_m(env, f, h_ue, h_bs)
    f_ghz = f / 1e9

    roofs = h**1.72

    def near(x: FloatArray) -> FloatArray:
        free_space = 20.0 * np.log10(40.0 * np.pi * x * f_ghz / 3.0)
        clutter = np.minimum(0.03 * roofs, 10.0) * np.log10(x) - np.minimum(0.044 * roofs, 14.77)
        return np.asarray(free_space + clutter + 0.002 * np.log10(h) * x)

    los = np.where(d <= bp, near(d3), near(bp) + 40.0 * np.log10(d3 / bp))
    nlos = (
        161.04
        - 7.1 * np.log10(width)
        + 7.5 * np.log10(h)
        - (24.37 - 3.7 * (h / h_bs) ** 2) * np.log10(h_bs)
        + (43.42 - 3.1 * np.log10(h_bs)) * (np.log10(d3) - 3.0)
        + 20.0 * np.log10(f_ghz)
        - (3.2 * np.log10(11.75 * h_ue) ** 2 - 4.97)
    )
    return np.where(line_of_sight, los, np.maximum(los, nlos))


def path_loss_macro_db(distance_m: ArrayLike) -> FloatArray:
    """Macro-cell path loss at 2 GHz, 128.1 + 37.6 lg(d/km) [dB]; TR 36.814 annex A.2.1.1."""
    distance = _positive("distance_m", distance_m)
    env = _MACRO
    _warn_outside(env, "distance_m", distance, *env.distance_range_m)
    return np.asarray(128.1 + 37.6 * np.log10(distance / 1e3))


def path_loss_db(
    env: Environment,
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    frequency_hz: ArrayLike,
    ue_height_m: ArrayLike = 1.5,
    effective_height_m: ArrayLike = 1.0,
) -> FloatArray:
    """Path loss of any environment at its nominal mast height [dB], shape of the broadcast inputs.

    "macro" is a line fitted at 2 GHz: another carrier draws the warning and changes nothing, and the LOS
    state and heights are not used.
    """
    if env.name == "uma":
        return path_loss_uma_db(
            distance_m, line_of_sight, frequency_hz, ue_height_m, effective_height_m=effective_height_m
        )
    if env.name == "umi":
        return path_loss_umi_db(distance_m, line_of_sight, frequency_hz, ue_height_m)
    if env.name == "rma":
        return path_loss_rma_db(distance_m, line_of_sight, frequency_hz, ue_height_m)
    _warn_outside(env, "frequency_hz", _positive("frequency_hz", frequency_hz), *env.frequency_range_hz)
    return path_loss_macro_db(distance_m)


def line_of_sight_probability(env: Environment, distance_m: ArrayLike, ue_height_m: ArrayLike = 1.5) -> FloatArray:
    """Probability that a device outdoors sees the base station; TR 38.901 Table 7.4.2-1.

    UMi: 1 up to 18 m, then 18/d + exp(-d/36)(1 - 18/d). UMa: the same with 63 m in place of 36 m, times
    1 + 5/4 C (d/100)^3 exp(-d/150) with C = ((h_UT - 13)/10)^1.5 above 13 m (valid to 23 m), else 0.
    RMa: 1 up to 10 m, then exp(-(d - 10)/1000). "macro" knows no LOS state: 0.
    """
    d = _positive("distance_m", distance_m)
    if env.name == "macro":
        return np.zeros_like(d)
    if env.name == "rma":
        return np.exp(-np.maximum(d - 10.0, 0.0) / 1000.0)
    decay_m = 63.0 if env.name == "uma" else 36.0
    share = np.minimum(18.0 / d, 1.0)
    probability = share + np.exp(-d / decay_m) * (1.0 - share)
    if env.name == "uma":
        raised = np.where(d > 18.0, _elevation_factor(d, np.asarray(ue_height_m, dtype=np.float64)), 0.0)
        # The product exceeds 1 by a little for high devices close by; a probability does not.
        probability = np.minimum(probability * (1.0 + raised), 1.0)
    return np.asarray(probability)


def _elevation_factor(distance_m: FloatArray, ue_height_m: FloatArray) -> FloatArray:
    """C(d, h_UT) of Table 7.4.1-1 note 1 (also the C' term of Table 7.4.2-1): 0 below 13 m."""
    lift = np.maximum(ue_height_m - 13.0, 0.0) / 10.0
    return np.asarray(lift**1.5 * 1.25 * (distance_m / 100.0) ** 3 * np.exp(-distance_m / 150.0))


def effective_height_uma_m(distance_m: ArrayLike, ue_height_m: ArrayLike, rng: np.random.Generator) -> FloatArray:
    """Effective environment height h_E of UMa [m], shape [K]; TR 38.901 Table 7.4.1-1 note 1.

    1 m with probability 1/(1 + C(d, h_UT)), otherwise uniform on 12, 15, ... up to h_UT - 1.5.
    """
    d, h_ue = np.broadcast_arrays(_positive("distance_m", distance_m), _positive("ue_height_m", ue_height_m))
    blocked = np.where(d > 18.0, _elevation_factor(d, h_ue), 0.0)
    choices = np.maximum(np.floor((h_ue - 1.5 - 12.0) / 3.0), 0.0) + 1.0
    roof = 12.0 + 3.0 * np.floor(rng.random(d.shape) * choices)
    return np.where(rng.random(d.shape) * (1.0 + blocked) < 1.0, 1.0, roof)


def draw_line_of_sight(
    env: Environment, distance_m: ArrayLike, rng: np.random.Generator, ue_height_m: ArrayLike = 1.5
) -> NDArray[np.bool_]:
    """LOS states [K], independent between devices, with the probability of `line_of_sight_probability`."""
    probability = line_of_sight_probability(env, distance_m, ue_height_m)
    return np.asarray(rng.random(probability.shape) < probability)


def shadowing_sigma_db(
    env: Environment,
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    breakpoint_m: ArrayLike = np.inf,
) -> FloatArray:
    """Standard deviation of shadowing [dB]; TR 38.901 Table 7.4.1-1, last column.

    UMa 4 (LOS) and 6 (NLOS); UMi 4 and 7.82; RMa 4 up to the breakpoint, 6 beyond it, 8 (NLOS); "macro" 8.
    """
    near, far, blocked = env.shadowing_db
    los = np.where(np.asarray(distance_m) <= breakpoint_m, near, far)
    return np.where(line_of_sight, los, blocked)


def draw_shadowing_db(sigma_db: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Log-normal shadowing in dB [K], mean 0, independent between devices (no spatial correlation)."""
    return np.asarray(sigma_db * rng.standard_normal(np.shape(sigma_db)))
