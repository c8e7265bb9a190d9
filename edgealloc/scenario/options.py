"""The options of a random cell, with ranges and help."""

# ruff: noqa: RUF009  (_option is dataclasses.field with a help text)

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from edgealloc.data.spec import Access, Pooling, Underfit
from edgealloc.errors import Fault, InputError
from edgealloc.scenario.adapter import (
    ARCHITECTURES,
    MaskFormat,
)
from edgealloc.scenario.hardware import DEVICE_CLASSES

__all__ = ["CellOptions", "option_help"]


THERMAL_NOISE_DBM_PER_HZ = -174.0


def _option(default: Any, help_: str) -> Any:
    """A dataclass field that carries its one-line help."""
    return field(default=default, metadata={"help": help_})


@dataclass(frozen=True, slots=True)
class CellOptions:
    """Everything that shapes a random cell; the defaults give a small, tight, feasible one.

    Each field carries its help in ``metadata["help"]``; :func:`option_help` lists them.
    """

    devices: int = _option(20, "number of devices K")
    access: Access = _option("fdma", "fdma, rb (resource blocks) or ofdma (sub-carriers)")
    subcarriers: int | None = _option(None, "OFDMA: sub-carriers M; 8 per device when not given")
    block_hz: float = _option(3750.0, "resource blocks: width in Hz (3.75 kHz is NB-IoT's narrowest)")
    environment: str = _option("uma", "path loss: uma, umi, rma (TR 38.901) or macro (128.1 + 37.6 lg d)")
    radius_m: float | None = _option(None, "cell radius in m; typical of the environment when not given")
    carrier_hz: float = _option(2e9, "carrier frequency in Hz")
    ue_height_m: float = _option(1.5, "height of the devices in m")
    fading: str = _option("rayleigh", "rayleigh, rician (devices in line of sight only) or none")
    delay_profile: str = _option("TDL-C", "OFDMA: TDL-A, TDL-B, TDL-C (correlated sub-carriers) or iid")
    delay_spread_s: float = _option(3e-7, "OFDMA: root-mean-square delay spread in s")
    span_hz: float = _option(2e7, "OFDMA: band in Hz over which the sub-carriers are spread evenly")
    antenna_gain_db: float = _option(0.0, "gain of both antennas together in dB")
    noise_figure_db: float = _option(5.0, "noise figure of the base station in dB, above -174 dBm/Hz")
    classes: tuple[tuple[str, float], ...] = _option(
        (("phone", 0.6), ("iot", 0.2), ("jetson", 0.2)), "shares of the kinds of devices"
    )
    samples: tuple[int, int] = _option((200, 2000), "range of the local samples, drawn uniformly")
    architecture: str = _option("roberta-base", "frozen model: " + ", ".join(ARCHITECTURES))
    rank: int = _option(8, "rank of the adapter")
    targets: tuple[str, ...] = _option((), "adapted modules; the model's usual ones when empty")
    bits: float = _option(16.0, "bits per uploaded parameter")
    tokens: int = _option(512, "tokens trained on per device and round")
    sequence_length: int = _option(128, "tokens per sequence")
    head_labels: int = _option(0, "outputs of a trained classification head, uploaded in full; 0: none")
    mask: MaskFormat = _option("seed", "how a device describes its mask: seed, bitmap or none")
    downlink_bps: float | None = _option(None, "downlink rate in bit/s; no download time when not given")
    energy_static_j: float = _option(0.0, "energy in J that a round costs in any case")
    latency_s: float = _option(30.0, "round deadline in s")
    reference_keep: float = _option(0.3, "keep rate that the spectrum is bought for; smaller is tighter")
    bandwidth_hz: float | None = _option(None, "uplink in Hz; bought for reference_keep when not given")
    snr_min_db: float = _option(0.0, "devices that need a lower signal-to-noise ratio are dropped anew")
    keep_min: float = _option(0.02, "least keep rate")
    keep_max: float = _option(1.0, "largest keep rate")
    underfit: Underfit = _option("inverse-keep", "underfitting term: inverse-keep or perturbation")
    underfit_weight: float | None = _option(None, "weight A; 0.1 (perturbation 0.5) of the gap at keep 1")
    pooling: Pooling = _option("global", "overfitting term: global or device")
    name: str | None = _option(None, "name of the instance; made from the options when not given")

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise InputError("scenario", faults)

    @property
    def columns(self) -> int:
        """Gains per device: M sub-carriers, or 1 where the channel is flat."""
        if self.access != "ofdma":
            return 1
        return 8 * self.devices if self.subcarriers is None else self.subcarriers


def option_help() -> dict[str, tuple[Any, str]]:
    """Name -> (default, help) of every :class:`CellOptions` field, in order; the CLI is built from this."""
    assert all(f.default is not MISSING for f in fields(CellOptions))
    return {f.name: (f.default, str(f.metadata["help"])) for f in fields(CellOptions)}


def _faults(o: CellOptions) -> list[Fault]:
    """All options at fault; what the models check themselves is left to them."""
    kinds, shares = [name for name, _ in o.classes], [share for _, share in o.classes]
    known = bool(kinds) and set(kinds) <= set(DEVICE_CLASSES) and len(set(kinds)) == len(kinds)
    rules: list[tuple[bool, str, str]] = [
        (o.devices >= 1, "devices", "an integer >= 1"),
        (o.access in ("fdma", "rb", "ofdma"), "access", "fdma, rb, ofdma"),
        (o.access != "ofdma" or o.columns >= o.devices, "subcarriers", "at least one per device"),
        (o.delay_profile == "iid" or o.delay_profile.startswith("TDL"), "delay_profile", "TDL-A, -B, -C, iid"),
        (0 < o.samples[0] <= o.samples[1], "samples", "(low, high) with 0 < low <= high"),
        (0 < o.reference_keep <= o.keep_max <= 1, "reference_keep", "in (0, keep_max], keep_max <= 1"),
        (0 < o.keep_min <= o.reference_keep, "keep_min", "in (0, reference_keep]"),
        (o.underfit in ("inverse-keep", "perturbation"), "underfit", "inverse-keep, perturbation"),
        (o.pooling in ("global", "device"), "pooling", "global, device"),
        (o.energy_static_j >= 0, "energy_static_j", "a number >= 0"),
        (known and min(shares) >= 0 and sum(shares) > 0, "classes", f"shares of {', '.join(DEVICE_CLASSES)}"),
    ]
    for key in ("block_hz", "latency_s", "span_hz", "carrier_hz", "radius_m", "bandwidth_hz", "downlink_bps"):
        value = getattr(o, key)
        rules.append((value is None or (bool(np.isfinite(value)) and value > 0), key, "a number > 0"))
    return [Fault("cell", key, f"{getattr(o, key)!r}", allowed) for ok, key, allowed in rules if not ok]
