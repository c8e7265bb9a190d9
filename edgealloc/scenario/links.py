"""Devices dropped around a base station, and the links between them: place, line of sight, gain, fading.

Models and their sources are in docs/scenarios.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import Fault, InputError
from edgealloc.scenario.environment import Environment, breakpoint_m
from edgealloc.scenario.fading import DelayProfile, FadingState, draw_fading
from edgealloc.scenario.path_loss import path_loss_db
from edgealloc.scenario.sight import (
    draw_line_of_sight,
    draw_shadowing_db,
    effective_height_uma_m,
    shadowing_sigma_db,
)
from edgealloc.units import BoolArray, FloatArray, IntArray, db_to_linear

__all__ = ["LinkModel", "Links", "draw_links"]

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class LinkModel:
    """What a link is drawn from.

    Parameters
    ----------
    environment
        Path loss, line of sight and shadowing.
    radius_m
        Radius of the cell in m; devices stand uniformly between it and the environment's least distance.
    carrier_hz, ue_height_m
        Carrier frequency in Hz and height of the devices in m.
    antenna_gain_db
        Gain of both antennas together in dB.
    fading
        ``rayleigh``, ``rician`` (links in line of sight, at the environment's mean factor; the others are
        Rayleigh) or ``none``.
    subcarriers, profile, spacing_hz
        M sub-carriers ``spacing_hz`` apart, correlated by the profile; independent without one.
    """

    environment: Environment
    radius_m: float
    carrier_hz: float
    ue_height_m: float = 1.5
    antenna_gain_db: float = 0.0
    fading: str = "rayleigh"
    subcarriers: int = 1
    profile: DelayProfile | None = None
    spacing_hz: float = 0.0

    def __post_init__(self) -> None:
        nearest = self.environment.drop_min_m
        faults = []
        if not self.radius_m > nearest:
            allowed = f"more than {nearest:g}, the least distance in {self.environment.name}"
            faults.append(Fault("cell", "radius_m", f"{self.radius_m}", allowed))
        if self.fading not in ("rayleigh", "rician", "none"):
            faults.append(Fault("cell", "fading", repr(self.fading), "rayleigh, rician, none"))
        if faults:
            raise InputError("scenario", faults)


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Place and channel of K devices.

    Parameters
    ----------
    position_m
        Positions relative to the base station in m. Shape [K, 2].
    line_of_sight
        Shape [K].
    mean_gain
        Power gain by path loss, shadowing and antennas, without fading. Shape [K].
    fading
        Small-scale fading.
    """

    position_m: FloatArray
    line_of_sight: BoolArray
    mean_gain: FloatArray
    fading: FadingState

    def gain(self) -> FloatArray:
        """Power gain on each sub-carrier. Shape [K, M]."""
        return np.asarray(self.mean_gain[:, None] * self.fading.power_gain())

    def with_rows(self, rows: IntArray, other: Links) -> Links:
        """A copy in which ``rows``, indices [N], are replaced by the N links of ``other``."""

        def put(old: NDArray[Scalar], new: NDArray[Scalar]) -> NDArray[Scalar]:
            merged = old.copy()
            merged[rows] = new
            return merged

        a, b = self.fading, other.fading
        fading = FadingState(put(a.ray, b.ray), put(a.taps, b.taps), put(a.tap_power, b.tap_power), a.response)
        return Links(
            put(self.position_m, other.position_m),
            put(self.line_of_sight, other.line_of_sight),
            put(self.mean_gain, other.mean_gain),
            fading,
        )


def draw_links(model: LinkModel, devices: int, rng: np.random.Generator) -> Links:
    """Drop ``devices`` devices uniformly over the area of the cell's ring and draw their links."""
    env, height = model.environment, model.ue_height_m
    distance = np.sqrt(rng.uniform(env.drop_min_m**2, model.radius_m**2, size=devices))
    angle = rng.uniform(0.0, 2.0 * np.pi, size=devices)
    los = draw_line_of_sight(env, distance, rng, height)
    h_e: FloatArray | float = 1.0
    if env.name == "uma":
        h_e = effective_height_uma_m(distance, height, rng)
    loss_db = path_loss_db(env, distance, los, model.carrier_hz, height, h_e)
    knee = np.inf if env.name == "macro" else breakpoint_m(env, model.carrier_hz, height, None, h_e)
    shadow_db = draw_shadowing_db(shadowing_sigma_db(env, distance, los, knee), rng)
    k_factor_db = {
        "none": np.full(devices, np.inf),
        "rayleigh": np.full(devices, -np.inf),
        "rician": np.where(los, env.rician_k_db, -np.inf),
    }[model.fading]
    return Links(
        position_m=distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1),
        line_of_sight=los,
        mean_gain=db_to_linear(model.antenna_gain_db - loss_db - shadow_db),
        fading=draw_fading(k_factor_db, rng, model.subcarriers, model.profile, model.spacing_hz),
    )
