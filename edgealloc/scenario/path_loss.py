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

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.scenario.environment import (
    MACRO,
    RMA,
    UMA,
    UMI,
    Environment,
    breakpoint_m,
    link_inputs,
    positive_numbers,
    warn_outside,
)
from edgealloc.units import FloatArray

__all__ = ["path_loss_db", "path_loss_macro_db", "path_loss_rma_db", "path_loss_uma_db", "path_loss_umi_db"]


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
    env = UMA
    d, d3, f, h_ue, h_bs = link_inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
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
    env = UMI
    d, d3, f, h_ue, h_bs = link_inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
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
    env = RMA
    d, d3, f, h_ue, h_bs = link_inputs(env, distance_m, line_of_sight, frequency_hz, ue_height_m, bs_height_m)
    h, width = (
        positive_numbers("building_height_m", building_height_m),
        positive_numbers("street_width_m", street_width_m),
    )
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
    distance = positive_numbers("distance_m", distance_m)
    env = MACRO
    warn_outside(env, "distance_m", distance, *env.distance_range_m)
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
    warn_outside(env, "frequency_hz", positive_numbers("frequency_hz", frequency_hz), *env.frequency_range_hz)
    return path_loss_macro_db(distance_m)
