"""Small-scale fading: block fading, frequency selectivity and its evolution in time.

Everything is a complex amplitude ``h`` of unit mean power; a device's power gain is its large-scale gain (path
loss and shadowing, :mod:`edgealloc.scenario.path_loss`) times ``|h|^2``. Amplitudes rather than powers, because
only they can be carried from one round to the next.

Frequency selectivity comes from the tapped delay lines TDL-A, TDL-B and TDL-C of 3GPP TR 38.901
(Tables 7.7.2-1 to 7.7.2-3; Rayleigh taps without a line of sight): ``h(f) = sum_l a_l exp(-j 2 pi f tau_l)``.
Neighbouring sub-carriers are correlated as the delay profile says,
``E[h(f) h*(f')] = sum_l P_l exp(-j 2 pi (f - f') tau_l)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray, db_to_linear

__all__ = [
    "DELAY_PROFILES",
    "ComplexArray",
    "DelayProfile",
    "FadingState",
    "delay_profile",
    "doppler_hz",
    "draw_fading",
    "draw_rayleigh",
    "evolve",
    "jakes_process",
    "lag_correlation",
]

ComplexArray = NDArray[np.complex128]
LIGHT_SPEED_M_PER_S = 3.0e8


@dataclass(frozen=True, slots=True, eq=False)
class DelayProfile:
    """A tapped delay line with unit total power.

    Parameters
    ----------
    name
        For example ``TDL-C``.
    delay_s
        Delays of the taps in s. Shape [L].
    power
        Mean powers of the taps, dimensionless, sum 1. Shape [L].
    """

    name: str
    delay_s: FloatArray
    power: FloatArray

    @property
    def delay_spread_s(self) -> float:
        """Root-mean-square delay spread in s."""
        mean = float(self.power @ self.delay_s)
        return float(np.sqrt(self.power @ (self.delay_s - mean) ** 2))


# (delay in units of the delay spread, power in dB) of each tap; TR 38.901 Tables 7.7.2-1, -2 and -3.
_TDL_A = (
    (0.0000, -13.4), (0.3819, 0.0), (0.4025, -2.2), (0.5868, -4.0), (0.4610, -6.0), (0.5375, -8.2),
    (0.6708, -9.9), (0.5750, -10.5), (0.7618, -7.5), (1.5375, -15.9), (1.8978, -6.6), (2.2242, -16.7),
    (2.1718, -12.4), (2.4942, -15.2), (2.5119, -10.8), (3.0582, -11.3), (4.0810, -12.7), (4.4579, -16.2),
    (4.5695, -18.3), (4.7966, -18.9), (5.0066, -16.6), (5.3043, -19.9), (9.6586, -29.7),
)  # fmt: skip
_TDL_B = (
    (0.0000, 0.0), (0.1072, -2.2), (0.2155, -4.0), (0.2095, -3.2), (0.2870, -9.8), (0.2986, -1.2),
    (0.3752, -3.4), (0.5055, -5.2), (0.3681, -7.6), (0.3697, -3.0), (0.5700, -8.9), (0.5283, -9.0),
    (1.1021, -4.8), (1.2756, -5.7), (1.5474, -7.5), (1.7842, -1.9), (2.0169, -7.6), (2.8294, -12.2),
    (3.0219, -9.8), (3.6187, -11.4), (4.1067, -14.9), (4.2790, -9.2), (4.7834, -11.3),
)  # fmt: skip
_TDL_C = (
    (0.0000, -4.4), (0.2099, -1.2), (0.2219, -3.5), (0.2329, -5.2), (0.2176, -2.5), (0.6366, 0.0),
    (0.6448, -2.2), (0.6560, -3.9), (0.6584, -7.4), (0.7935, -7.1), (0.8213, -10.7), (0.9336, -11.1),
    (1.2285, -5.1), (1.3083, -6.8), (2.1704, -8.7), (2.7105, -13.2), (4.2589, -13.9), (4.6003, -13.9),
    (5.4902, -15.8), (5.6077, -17.1), (6.3065, -16.0), (6.6374, -15.7), (7.0427, -21.6), (8.6523, -22.8),
)  # fmt: skip
DELAY_PROFILES: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {"TDL-A": _TDL_A, "TDL-B": _TDL_B, "TDL-C": _TDL_C}
)


def delay_profile(name: str, delay_spread_s: float) -> DelayProfile:
    """A TDL profile scaled to a delay spread in s (TR 38.901 section 7.7.3: delay = table value * spread).

    Typical spreads: 10 ns very short, 30 ns short, 100 ns nominal, 300 ns long, 1000 ns very long
    (TR 38.901 Table 7.7.3-1).

    Raises
    ------
    InputError
        For an unknown profile or a negative spread.
    """
    faults: list[Fault] = []
    if name not in DELAY_PROFILES:
        faults.append(Fault("fading", "delay_profile", repr(name), ", ".join(DELAY_PROFILES)))
    if not (np.isfinite(delay_spread_s) and delay_spread_s >= 0.0):
        faults.append(Fault("fading", "delay_spread_s", f"{delay_spread_s}", "a finite number >= 0"))
    if faults:
        raise InputError("delay profile", faults)
    delay, power_db = np.array(DELAY_PROFILES[name]).T
    power = db_to_linear(power_db)
    return DelayProfile(name, delay * delay_spread_s, power / power.sum())


def draw_rayleigh(shape: int | tuple[int, ...], rng: np.random.Generator) -> ComplexArray:
    """Circular Gaussian amplitudes of unit mean power, independent; any shape."""
    size = (shape,) if isinstance(shape, int) else shape
    pair = rng.standard_normal((*size, 2)) * np.sqrt(0.5)
    return np.asarray(pair.view(np.complex128)[..., 0])


def _ray_power(k_factor_db: ArrayLike) -> FloatArray:
    """Share of a unit-power link in its fixed ray, ``K / (1 + K)``; exact at both infinities."""
    return np.asarray(1.0 / (1.0 + db_to_linear(-np.asarray(k_factor_db, dtype=np.float64))))


def doppler_hz(speed_m_per_s: ArrayLike, carrier_hz: ArrayLike) -> FloatArray:
    """Largest Doppler shift in Hz, ``v f_c / c``.

    Parameters
    ----------
    speed_m_per_s
        Speed v of the device in m/s. Any shape.
    carrier_hz
        Carrier frequency f_c in Hz. A shape that broadcasts against it.

    Returns
    -------
    numpy.ndarray
        The shift in Hz, of the shape that both broadcast to.
    """
    return np.asarray(np.asarray(speed_m_per_s) * np.asarray(carrier_hz) / LIGHT_SPEED_M_PER_S)


def lag_correlation(doppler_hz: ArrayLike, lag_s: ArrayLike) -> FloatArray:
    """``E[h(t + lag) h*(t)] = J0(2 pi f_D lag)``, Clarke and Jakes' isotropic scattering (Jakes 1974).

    Parameters
    ----------
    doppler_hz
        Largest Doppler shift f_D in Hz, from :func:`doppler_hz`. Any shape.
    lag_s
        Time between the two moments in s. A shape that broadcasts against it.

    Returns
    -------
    numpy.ndarray
        Correlation of the amplitudes, in [-1, 1], of the shape that both broadcast to.
    """
    from scipy.special import j0  # scipy.special is slow to import, and few callers evolve channels

    return np.asarray(j0(2.0 * np.pi * np.asarray(doppler_hz) * np.asarray(lag_s)))


def evolve(
    amplitude: ComplexArray, correlation: ArrayLike, rng: np.random.Generator, power: ArrayLike = 1.0
) -> ComplexArray:
    """The same Rayleigh links one round later: ``rho h + sqrt((1 - rho^2) P) w`` with ``w`` Gaussian.

    First-order autoregressive: successive rounds have the correlation ``rho``, rounds n apart ``rho^n``;
    use :func:`jakes_process` where the longer lags matter.

    Parameters
    ----------
    amplitude
        Amplitudes of shape [K], or taps of shape [K, L].
    correlation
        rho in [-1, 1], from :func:`lag_correlation`; broadcasts against ``amplitude``.
    power
        Mean power P that the amplitudes keep: 1, or ``profile.power`` for taps; its shape broadcasts, too.

    Raises
    ------
    InputError
        For a correlation out of [-1, 1].
    """
    rho = np.asarray(correlation, dtype=np.float64)
    if not np.all(np.abs(rho) <= 1.0):
        raise InputError("fading", [Fault("rounds", "correlation", f"{rho}", "numbers in [-1, 1]")])
    fresh = draw_rayleigh(amplitude.shape, rng) * np.sqrt(power)
    return np.asarray(rho * amplitude + np.sqrt(1.0 - rho**2) * fresh)


def jakes_process(
    time_s: ArrayLike, doppler_hz: float, links: int, rng: np.random.Generator, paths: int = 32
) -> ComplexArray:
    """Amplitudes of Rayleigh links over time, shape [T, links], unit mean power.

    Sum of sinusoids with random angles and phases (Clarke's model as simulated by Zheng and Xiao, IEEE
    Trans. Commun. 51(6), 2003): over the draws its autocorrelation is exactly ``J0(2 pi f_D lag)``, for any
    number of ``paths``; only the Gaussian shape of the amplitudes needs many.
    """
    time = np.asarray(time_s, dtype=np.float64)[:, None]
    rotation = rng.uniform(-np.pi, np.pi, size=links)
    total = np.zeros((time.shape[0], links), dtype=np.complex128)
    for n in range(paths):  # a loop, so that memory stays at [T, links]
        angle = (2.0 * np.pi * n + rotation) / paths
        phase = rng.uniform(-np.pi, np.pi, size=links)
        total += np.exp(1j * (2.0 * np.pi * doppler_hz * time * np.cos(angle) + phase))
    return np.asarray(total / np.sqrt(paths))


@dataclass(frozen=True, slots=True, eq=False)
class FadingState:
    """The small-scale fading of K links at one moment: a fixed ray plus Gaussian taps seen in frequency.

    Parameters
    ----------
    ray
        Amplitude of the line-of-sight ray, the same on all sub-carriers. Shape [K].
    taps
        Gaussian amplitudes: one for flat fading, one per tap or, when independent, per sub-carrier. [K, L].
    tap_power
        Mean power of the taps, shape [K, L]. With a delay profile ``|ray|^2 + sum_l tap_power = 1``;
        independent sub-carriers each have ``|ray|^2 + tap_power = 1``.
    response
        What each tap adds to each sub-carrier, shape [L, M]; None for independent sub-carriers (L = M).
    """

    ray: ComplexArray
    taps: ComplexArray
    tap_power: FloatArray
    response: ComplexArray | None

    def power_gain(self) -> FloatArray:
        """``|h|^2`` on each sub-carrier, of unit mean. Shape [K, M]."""
        spread = self.taps if self.response is None else self.taps @ self.response
        return np.asarray(np.square(np.abs(self.ray[:, None] + spread)))

    def next(self, correlation: float, rng: np.random.Generator) -> FadingState:
        """The state one round later: the ray stays, the taps move by :func:`evolve`."""
        return replace(self, taps=evolve(self.taps, correlation, rng, self.tap_power))


def draw_fading(
    k_factor_db: FloatArray,
    rng: np.random.Generator,
    subcarriers: int = 1,
    profile: DelayProfile | None = None,
    spacing_hz: float = 0.0,
) -> FadingState:
    """Draw the fading of K links.

    Parameters
    ----------
    k_factor_db
        Rician factor of each link in dB; minus infinity for Rayleigh, plus infinity for no fading. Shape [K].
    rng
        Source of randomness.
    subcarriers, profile, spacing_hz
        M sub-carriers ``spacing_hz`` apart, correlated by the profile; without a profile independent.
    """
    devices = len(k_factor_db)
    ray_power = _ray_power(k_factor_db)
    ray = np.sqrt(ray_power) * np.exp(2j * np.pi * rng.random(devices))
    if profile is None:
        share, response = np.ones(subcarriers), None
    else:
        frequency = np.arange(subcarriers) * spacing_hz
        share = profile.power
        response = np.exp(-2j * np.pi * np.outer(profile.delay_s, frequency))
    tap_power = np.multiply.outer(1.0 - ray_power, share)
    taps = draw_rayleigh(tap_power.shape, rng) * np.sqrt(tap_power)
    return FadingState(ray, taps, tap_power, response)
