"""Random cells: ``make_cell(CellOptions(...), rng)``.

Devices are dropped around a base station (:mod:`edgealloc.scenario.links`), get a kind of hardware
(:mod:`edgealloc.scenario.hardware`) and the load of a named model's adapter (:mod:`edgealloc.scenario.adapter`),
and the cell buys just so much spectrum that all of them can keep ``reference_keep`` of the adapter
(:mod:`edgealloc.scenario.sizing`). It is therefore tight and feasible by construction; the allocation that proves
it comes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.bound import StabilityTerm
from edgealloc.formulation.radio import block_count
from edgealloc.scenario.adapter import (
    AdapterCost,
    adapter_cost,
    architecture,
    lora_layers,
)
from edgealloc.scenario.environment import environment
from edgealloc.scenario.fading import delay_profile
from edgealloc.scenario.hardware import DEVICE_CLASSES
from edgealloc.scenario.links import LinkModel, Links, draw_links
from edgealloc.scenario.options import THERMAL_NOISE_DBM_PER_HZ, CellOptions
from edgealloc.scenario.sizing import Demand, OperatingPoint, deal_subcarriers, least_bandwidth
from edgealloc.units import BoolArray, FloatArray, IntArray, dbm_to_w

__all__ = ["Cell", "make_cell", "next_round"]

REDRAWS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A drawn cell: the instance and where it came from.

    Parameters
    ----------
    instance
        The allocation instance; its gain is ``links.gain()``.
    links
        Place, line of sight, mean gain and fading of the devices.
    device_class
        Name of each device's kind. Shape [K].
    reference
        An allocation of equal keep rates that breaks no budget; None when the options gave a bandwidth that
        does not carry it, and after :func:`next_round`.
    redrawn
        How many draws were thrown away because the device was out of coverage or could not finish in time.
    """

    instance: Instance
    links: Links = field(repr=False)
    device_class: NDArray[np.str_] = field(repr=False)
    reference: Allocation | None = field(repr=False)
    redrawn: int

    @property
    def position_m(self) -> FloatArray:
        """Positions relative to the base station in m. Shape [K, 2]."""
        return self.links.position_m

    @property
    def line_of_sight(self) -> BoolArray:
        """Whether a device sees the base station; False throughout for ``macro``. Shape [K]."""
        return self.links.line_of_sight


def make_cell(options: CellOptions, rng: np.random.Generator) -> Cell:
    """Draw a cell; the same options, generator state and versions give the same bits.

    Parameters
    ----------
    options
        What shapes the cell.
    rng
        Source of all randomness.

    Returns
    -------
    Cell
        The instance, where its devices stand, and a reference allocation where the bandwidth holds one.

    Raises
    ------
    InputError
        When some kind of device can never take part: it names the kinds and what to change.
    """
    o, k = options, options.devices
    cost = _cost(o)
    kinds = np.array([name for name, _ in o.classes])
    shares = np.array([share for _, share in o.classes])
    kind = rng.choice(len(kinds), size=k, p=shares / shares.sum())
    hardware = {
        key: np.array([getattr(DEVICE_CLASSES[name], key) for name in kinds])[kind]
        for key in ("freq_min_hz", "freq_max_hz", "flops_per_cycle", "capacitance", "power_max_w", "energy_j")
    }
    samples = rng.integers(*o.samples, size=k, endpoint=True).astype(np.float64)
    power_max_w = rng.uniform(*hardware["power_max_w"].T)
    energy_j = rng.uniform(*hardware["energy_j"].T)
    cycles_fixed = cost.flops_fixed / hardware["flops_per_cycle"]
    cycles_lora = cost.flops_lora / hardware["flops_per_cycle"]
    noise_dbm = THERMAL_NOISE_DBM_PER_HZ + o.noise_figure_db
    noise_w = float(dbm_to_w(noise_dbm))

    payload_bits = cost.payload_fixed_bits + cost.payload_lora_bits * o.reference_keep
    demand = Demand(
        payload_bits=np.full(k, payload_bits),
        cycles=cycles_fixed + cycles_lora * o.reference_keep,
        time_s=np.full(k, o.latency_s - (payload_bits / o.downlink_bps if o.downlink_bps else 0.0)),
        energy_j=energy_j - o.energy_static_j,
        freq_min_hz=hardware["freq_min_hz"],
        freq_max_hz=hardware["freq_max_hz"],
        capacitance=hardware["capacitance"],
        power_max_w=power_max_w,
    )
    links, point, redrawn = _covered_links(o, demand, kinds[kind], noise_w, rng)
    gain = links.gain()
    bandwidth_hz, reference = _spectrum(o, point, gain / noise_w)
    instance = Instance(
        name=o.name or f"{o.access}-{k}{f'x{o.columns}' if o.access == 'ofdma' else ''}-{o.environment}",
        access=o.access,
        bandwidth_hz=bandwidth_hz,
        noise_psd_dbm_per_hz=noise_dbm,
        latency_s=o.latency_s,
        bound=_bound(o, samples),
        samples=samples,
        gain=gain if o.access == "ofdma" else gain[:, 0],
        power_max_w=power_max_w,
        energy_j=energy_j,
        energy_static_j=np.full(k, o.energy_static_j),
        payload_fixed_bits=np.full(k, cost.payload_fixed_bits),
        payload_lora_bits=np.full(k, cost.payload_lora_bits),
        cycles_fixed=cycles_fixed,
        cycles_lora=cycles_lora,
        freq_min_hz=hardware["freq_min_hz"],
        freq_max_hz=hardware["freq_max_hz"],
        capacitance=hardware["capacitance"],
        downlink_bps=np.full(k, o.downlink_bps or np.inf),
        keep_min=np.full(k, o.keep_min),
        keep_max=np.full(k, o.keep_max),
        block_hz=o.block_hz if o.access == "rb" else None,
    )
    return Cell(instance, links, kinds[kind], reference, redrawn)


def next_round(cell: Cell, correlation: float, rng: np.random.Generator) -> Cell:
    """The same cell one round later: the fading moved on, budgets and everything else kept.

    The spectrum was bought for the first channel, so the new cell has no reference allocation and may be
    infeasible.

    Parameters
    ----------
    cell
        The cell now.
    correlation
        That of the amplitudes of successive rounds, in [-1, 1]
        (:func:`edgealloc.scenario.fading.lag_correlation`).
    rng
        Source of randomness.

    Returns
    -------
    Cell
        The cell with its new gains; links and instance agree.

    Raises
    ------
    InputError
        For a correlation out of range.
    """
    links = replace(cell.links, fading=cell.links.fading.next(correlation, rng))
    gain = links.gain() if cell.instance.access == "ofdma" else links.gain()[:, 0]
    return replace(cell, instance=cell.instance.with_changes(gain=gain), links=links, reference=None)


def _cost(o: CellOptions) -> AdapterCost:
    arch = architecture(o.architecture)
    return adapter_cost(
        arch,
        lora_layers(arch, o.rank, o.targets),
        bits=o.bits,
        tokens=o.tokens,
        sequence_length=o.sequence_length,
        head_labels=o.head_labels,
        mask=o.mask,
    )


def _bound(o: CellOptions, samples: FloatArray) -> BoundSpec:
    """The bound's constants; without a given weight both its terms matter at every size of the cell.

    At these shares of the overfitting term at keep rate 1 the resource-free optimum keeps about 0.6
    (inverse-keep) and 0.8 (perturbation) of the adapter.
    """
    spec = BoundSpec(underfit=o.underfit, pooling=o.pooling)
    if o.underfit_weight is not None:
        return replace(spec, underfit_weight=o.underfit_weight)
    pooled = o.pooling == "global"
    gap = StabilityTerm.of(spec, samples.sum() if pooled else samples).value(
        np.ones(1 if pooled else len(samples))
    )
    share = 0.1 if o.underfit == "inverse-keep" else 0.5
    weights = np.ones(1) if pooled else samples / samples.sum()
    return replace(spec, underfit_weight=share * float(weights @ gap))


def _covered_links(
    o: CellOptions, demand: Demand, kind: NDArray[np.str_], noise_w: float, rng: np.random.Generator
) -> tuple[Links, OperatingPoint, int]:
    """Links on which every device reaches the reference keep rate; those that do not are dropped anew.

    Raises
    ------
    InputError
        When devices of some class find no such place in 100 draws; it names the classes.
    """
    env = environment(o.environment)
    flat = o.access != "ofdma" or o.delay_profile == "iid"
    model = LinkModel(
        environment=env,
        radius_m=env.radius_m if o.radius_m is None else o.radius_m,
        carrier_hz=o.carrier_hz,
        ue_height_m=o.ue_height_m,
        antenna_gain_db=o.antenna_gain_db,
        fading=o.fading,
        subcarriers=o.columns,
        profile=None if flat else delay_profile(o.delay_profile, o.delay_spread_s),
        spacing_hz=o.span_hz / o.columns,
    )

    def point_on(links: Links, rows: IntArray) -> OperatingPoint:
        return least_bandwidth(demand.take(rows), links.gain().mean(axis=1) / noise_w, o.snr_min_db)

    rows = np.arange(o.devices)
    links = draw_links(model, o.devices, rng)
    point, redrawn = point_on(links, rows), 0
    for _ in range(REDRAWS):
        rows = np.flatnonzero(np.isnan(point.bandwidth_hz))
        if not len(rows):
            return links, point, redrawn
        redrawn += len(rows)
        fresh = draw_links(model, len(rows), rng)
        links, point = links.with_rows(rows, fresh), point.with_rows(rows, point_on(fresh, rows))
    lacking = sorted(set(kind[np.isnan(point.bandwidth_hz)].tolist()))
    remedy = "a longer latency_s, fewer tokens, a smaller reference_keep, a smaller radius_m, or other classes"
    raise InputError(
        "scenario",
        [
            Fault("cell", f"class {c}", f"no place found where it can serve {o.tokens} tokens", remedy)
            for c in lacking
        ],
    )


def _spectrum(o: CellOptions, point: OperatingPoint, snr_hz_per_w: FloatArray) -> tuple[float, Allocation | None]:
    """Total bandwidth in Hz and the reference allocation in it, if the bandwidth given can hold it.

    Raises
    ------
    InputError
        When the sub-carriers that are needed are wider together than the band they lie in.
    """
    keep = np.full(o.devices, o.reference_keep)
    if o.access == "ofdma":
        width_hz, owner = deal_subcarriers(point, snr_hz_per_w)
        need_hz = width_hz * o.columns
        if o.bandwidth_hz is None and need_hz > o.span_hz:
            allowed = f"at least the {need_hz:.3g} Hz that the sub-carriers occupy"
            raise InputError("scenario", [Fault("cell", "span_hz", f"{o.span_hz}", allowed)])
        owned = np.maximum(np.bincount(owner[owner >= 0], minlength=o.devices), 1)
        # Shaved so that the sum over a device's sub-carriers, rounded, stays within its limit; the rates
        # were dealt with a larger margin.
        power = np.where(owner >= 0, (point.power_w * (1.0 - 1e-9) / owned)[owner], 0.0)
        # Wider sub-carriers than needed serve the same rates with the same power: log(1 + x/b) b grows in b.
        reference = Allocation(keep, point.freq_hz, power, owner=owner)
    else:
        band = point.bandwidth_hz
        need_hz = float(band.sum()) * (1.0 + 1e-12)
        if o.access == "rb":
            blocks = np.ceil(band / o.block_hz)
            band, need_hz = blocks * o.block_hz, float(blocks.sum() * o.block_hz)
        reference = Allocation(keep, point.freq_hz, point.power_w, bandwidth_hz=band)
    if o.bandwidth_hz is None:
        return need_hz, reference
    fits = need_hz <= o.bandwidth_hz
    if o.access == "rb":
        fits = block_count(need_hz, o.block_hz) <= block_count(o.bandwidth_hz, o.block_hz)
    return o.bandwidth_hz, reference if fits else None
