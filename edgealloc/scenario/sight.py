"""Line of sight and shadowing: probabilities, draws, standard deviations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.scenario.environment import (
    Environment,
    positive_numbers,
)
from edgealloc.units import BoolArray, FloatArray

__all__ = [
    "draw_line_of_sight",
    "draw_shadowing_db",
    "effective_height_uma_m",
    "line_of_sight_probability",
    "shadowing_sigma_db",
]


def line_of_sight_probability(env: Environment, distance_m: ArrayLike, ue_height_m: ArrayLike = 1.5) -> FloatArray:
    """Probability that a device outdoors sees the base station; TR 38.901 Table 7.4.2-1. Shape of the inputs.

    UMi: 1 up to 18 m, then 18/d + exp(-d/36)(1 - 18/d). UMa: the same with 63 m in place of 36 m, times
    1 + 5/4 C (d/100)^3 exp(-d/150) with C = ((h_UT - 13)/10)^1.5 above 13 m (valid to 23 m), else 0.
    RMa: 1 up to 10 m, then exp(-(d - 10)/1000). "macro" knows no LOS state: 0.
    """
    d = positive_numbers("distance_m", distance_m)
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
    d, h_ue = np.broadcast_arrays(
        positive_numbers("distance_m", distance_m), positive_numbers("ue_height_m", ue_height_m)
    )
    blocked = np.where(d > 18.0, _elevation_factor(d, h_ue), 0.0)
    choices = np.maximum(np.floor((h_ue - 1.5 - 12.0) / 3.0), 0.0) + 1.0
    roof = 12.0 + 3.0 * np.floor(rng.random(d.shape) * choices)
    return np.where(rng.random(d.shape) * (1.0 + blocked) < 1.0, 1.0, roof)


def draw_line_of_sight(
    env: Environment, distance_m: ArrayLike, rng: np.random.Generator, ue_height_m: ArrayLike = 1.5
) -> BoolArray:
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
