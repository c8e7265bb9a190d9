"""Hostile instances, tiny enough for the oracle: a seed and the name of a regime give one, always the same.

Budgets are drawn from what devices need, so that about half of the instances are feasible and scarce at any scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import Access, AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.errors import InputError
from tests.fuzz.carry import P_MAX, E, T, carried, least_band
from tests.fuzz.cell import Cell
from tests.fuzz.exact import blocks

Rng = np.random.Generator
Fields = dict[str, Any]


def instance_of(regime: str, seed: int) -> Instance:
    """The instance of a regime and a seed."""
    rng = np.random.default_rng([list(REGIMES).index(regime), seed])
    while True:
        try:
            return REGIMES[regime](rng, seed).with_changes(name=f"{regime}-{seed}")
        except InputError:
            continue  # fields that contradict each other, such as a level out of range: drawn again


def power_of_ten(rng: Rng, low: float, high: float, size: int | None = None) -> Any:
    """10 to a uniform power."""
    return 10.0 ** rng.uniform(low, high, size)


def draw(
    rng: Rng, access: Access | None = None, devices: int | None = None, extreme: bool = False, **changes: Any
) -> Fields:
    """Fields of an instance in which devices compete; with ``extreme`` at scales far from any real cell."""
    access = access or ("fdma", "rb", "ofdma")[int(rng.integers(3))]
    k = devices or int(rng.choice([1, 2, 2, 2, 3]))
    m = int(rng.choice([1, 2, 3, 4, 5, 6])) if k < 3 else int(rng.choice([2, 3, 4]))
    wide = 6.0 if extreme else 0.0
    band, latency = power_of_ten(rng, 3 - wide, 7 + wide), power_of_ten(rng, 0 - wide, 2 + wide)
    power, noise = power_of_ten(rng, -3 - wide, 0 + wide, k), -174.0 if not extreme else rng.uniform(-300, 50)
    snr = power_of_ten(rng, -1, 2.5, k) if not extreme else power_of_ten(rng, -9, 6, k)
    n0 = 10.0 ** ((noise - 30.0) / 10.0)
    fading = rng.exponential(size=(k, m)) + 1e-3
    gain = (snr * n0 * band / power)[:, None] * (fading if access == "ofdma" else 1.0)
    rate = band / k * np.log1p(snr * k) / math.log(2.0)
    busy = rng.uniform(0.1, 0.97, k)  # share of the deadline that computing takes at most
    fast = power_of_ten(rng, 8.5 - wide, 9.5 + wide, k)
    linear = rng.choice([0.0, 0.02, 0.3, 2.0], k)  # cycles of a keep rate of 1, as a share of the fixed ones
    work = busy * latency * fast / (1.0 + 0.2 * linear)
    lora = rate * latency * (1.0 - busy) * power_of_ten(rng, -1, 0.9, k)
    capacitance = power_of_ten(rng, -1, 1, k) * power * latency / (fast**2 * work)
    energy = (capacitance * fast**2 * work + power * latency * (1.0 - busy)) * power_of_ten(rng, -0.4, 0.4, k)
    return {
        "name": "drawn", "access": access, "bandwidth_hz": band, "noise_psd_dbm_per_hz": noise,
        "latency_s": latency,
        "bound": BoundSpec(
            underfit_weight=power_of_ten(rng, -2.5, 0.5), sparsity_weight=float(rng.choice([0.0, 0.1, 0.5, 2.0])),
            pooling="global" if rng.random() < 0.5 else "device",
        ),
        "samples": rng.integers(50, 2000, k), "gain": gain if access == "ofdma" else gain[:, 0],
        "power_max_w": power, "energy_j": energy, "energy_static_j": np.zeros(k),
        "payload_fixed_bits": np.zeros(k), "payload_lora_bits": lora, "cycles_fixed": work,
        "cycles_lora": work * linear, "freq_min_hz": fast * rng.choice([1e-3, 0.1, 0.6], k),
        "freq_max_hz": fast, "capacitance": capacitance, "downlink_bps": np.full(k, math.inf),
        "keep_min": rng.choice([0.01, 0.05, 0.2], k), "keep_max": rng.choice([0.6, 1.0, 1.0], k),
        "block_hz": band / m if access == "rb" else None,
    } | changes  # fmt: skip


def levels(rng: Rng, fields: Fields) -> None:
    """Some devices have a list of keep rates."""
    fields["keep_levels"] = tuple(
        np.unique(np.round(rng.uniform(low, high, int(rng.integers(1, 5))), 2).clip(low, high))
        if rng.random() < 0.8 else None
        for low, high in zip(fields["keep_min"], fields["keep_max"], strict=True)
    )  # fmt: skip


def menus(rng: Rng, fields: Fields) -> None:
    """Some devices choose among adapters."""
    fields["adapter_options"] = tuple(
        tuple(
            AdapterOption(f"r={i}", bits * share, cycles * share, float(rng.choice([0.5, 1.0, 1.0, 1.5, 3.0])))
            for i, share in enumerate(rng.permutation([0.1, 0.3, 0.5, 1.0, 2.0])[: rng.integers(1, 3)])
        )
        if rng.random() < 0.7 else None
        for bits, cycles in zip(fields["payload_lora_bits"], fields["cycles_lora"], strict=True)
    )  # fmt: skip


def selection(rng: Rng, fields: Fields) -> None:
    """Devices may be left out."""
    fields["exclusion_penalty"] = float(rng.choice([0.0, power_of_ten(rng, -2, 2), power_of_ten(rng, -6, 6)]))


def common(_rng: Rng, fields: Fields) -> None:
    """One keep rate for all."""
    fields["common_keep"] = True
    fields["keep_min"] = np.full(len(fields["samples"]), float(np.min(fields["keep_min"])))


def bounded(fields: Fields, **changes: Any) -> None:
    """Other constants of the bound."""
    old = fields["bound"]
    kept = {name: getattr(old, name) for name in BoundSpec.__slots__}
    fields["bound"] = BoundSpec(**(kept | changes))


def perturbation(_rng: Rng, fields: Fields) -> None:
    """u = 1 - s^2."""
    bounded(fields, underfit="perturbation", underfit_curve=None)


def curve(rng: Rng, fields: Fields) -> None:
    """A measured curve: flat, steep, stepped, or as users measure them."""
    n = int(rng.integers(2, 8))
    knots = np.concatenate(([0.01], np.sort(rng.uniform(0.02, 0.99, n - 2)), [1.0]))
    kind = rng.choice(["flat", "steep", "stepped", "measured", "random", "tiny"])
    if kind == "flat":
        value = np.full(n, float(rng.choice([0.0, 1.0, 1e-9])))
    elif kind == "steep":
        value = 1e3 * 10.0 ** (-rng.uniform(2, 12) * knots)
    elif kind == "stepped":
        value = np.repeat(np.sort(rng.exponential(size=n))[::-1], 2)[:n]
    elif kind == "measured":
        value = np.round(1.0 / np.sqrt(knots) - 1.0, 3)
    else:
        value = np.sort(rng.exponential(size=n))[::-1] * (1e-9 if kind == "tiny" else 1.0)
    bounded(fields, underfit="curve", underfit_curve=UnderfitCurve(knots, value))


def logistic(rng: Rng, fields: Fields) -> None:
    """What is left to learn, from nearly straight to a step, its half inside the range or far from it."""
    half = rng.choice([power_of_ten(rng, -1.5, 0.0), power_of_ten(rng, -3, 1), power_of_ten(rng, -6, 6)])
    steepness = rng.choice([power_of_ten(rng, -0.5, 1.3), power_of_ten(rng, -0.5, 1.3), power_of_ten(rng, -6, 6)])
    term = UnderfitLogistic(float(half), float(steepness))
    bounded(fields, underfit="logistic", underfit_curve=None, underfit_logistic=term)


def pooled_by_device(_rng: Rng, fields: Fields) -> None:
    """One stability term a device."""
    bounded(fields, pooling="device")


def downlink(rng: Rng, fields: Fields) -> None:
    """Downloading takes time."""
    k = len(fields["samples"])
    bits = fields["payload_lora_bits"] + fields["payload_fixed_bits"]
    fields["downlink_bps"] = np.where(
        rng.random(k) < 0.7, bits / fields["latency_s"] * power_of_ten(rng, 0, 2, k), math.inf
    )


def head(rng: Rng, fields: Fields) -> None:
    """Bits that are never dropped."""
    fields["payload_fixed_bits"] = fields["payload_lora_bits"] * power_of_ten(rng, -2, 0, len(fields["samples"]))


def static(rng: Rng, fields: Fields) -> None:
    """Energy that is spent in any case."""
    fields["energy_static_j"] = fields["energy_j"] * rng.choice([0.0, 1e-6, 0.3, 0.9, 1.0], len(fields["samples"]))


def clusters(rng: Rng, fields: Fields) -> None:
    """A stability term per cluster, whose names are in any order."""
    k = len(fields["samples"])
    fields["clusters"] = tuple(int(name) for name in rng.choice([0, 3, 7, 2**53 - 1], 2)[rng.integers(0, 2, k)])
    if rng.random() < 0.3:
        fields["clusters"] = tuple(rng.permutation(k).tolist())
    fields["common_keep"] = False
    bounded(fields, pooling="cluster")


def fetched(rng: Rng, fields: Fields) -> None:
    """Rows of menus that download or compute more, or have a channel of their own."""
    menus(rng, fields)
    if rng.random() < 0.8:
        downlink(rng, fields)
    ofdma = fields["access"] == "ofdma"

    def richer(row: AdapterOption, k: int) -> AdapterOption:
        there = fields["downlink_bps"][k] * fields["latency_s"]
        more = {
            "download_bits": float((there if math.isfinite(there) else 1e6) * power_of_ten(rng, -5, -0.2)),
            "cycles_fixed": float(fields["cycles_fixed"][k] * power_of_ten(rng, -4, -0.3)),
        }
        if not ofdma:
            more["gain"] = float(fields["gain"][k] * rng.choice([0.0, 1.0, *power_of_ten(rng, -2, 2, 8)]))
        return replace(row, **{name: value for name, value in more.items() if rng.random() < 0.6})

    fields["adapter_options"] = tuple(
        None if menu is None else tuple(richer(row, k) for row in menu)
        for k, menu in enumerate(fields["adapter_options"])
    )


VARIANTS: tuple[Callable[[Rng, Fields], None], ...] = (
    levels, menus, selection, common, perturbation, curve, pooled_by_device, downlink, head, static,
)  # fmt: skip
PAIRS = list(itertools.product(itertools.combinations(VARIANTS, 2), ("fdma", "rb", "ofdma")))
# after the others, whose seeds stay what they were
PAIRS += itertools.product(
    [(vary, logistic) for vary in VARIANTS if vary not in (perturbation, curve)], ("fdma", "rb", "ofdma")
)


def plain(rng: Rng, _seed: int) -> Instance:
    """Up to two variants at scales of real cells."""
    fields = draw(rng)
    for vary in rng.choice(np.array(VARIANTS, object), int(rng.integers(3)), replace=False):
        vary(rng, fields)
    return Instance(**fields)


def pairs(rng: Rng, seed: int) -> Instance:
    """Every two variants under every access scheme, in turn."""
    (one, two), access = PAIRS[seed % len(PAIRS)]
    fields = draw(rng, access, devices=int(rng.choice([2, 2, 3])))
    one(rng, fields)
    two(rng, fields)
    return Instance(**fields)


NUMBERS = ["bandwidth_hz", "latency_s", "gain", "power_max_w", "energy_j", "payload_lora_bits", "cycles_fixed",
           "cycles_lora", "freq_max_hz", "freq_min_hz", "capacitance", "samples"]  # fmt: skip


def scales(rng: Rng, _seed: int) -> Instance:
    """Scarce at extreme scales, or single fields moved by 1e-18 to 1e12."""
    fields = draw(rng, extreme=bool(rng.random() < 0.7))
    if rng.random() < 0.4:
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    if rng.random() < 0.6:
        for name in rng.choice(NUMBERS, int(rng.integers(1, 4)), replace=False):
            factor = power_of_ten(rng, -18, 12) if rng.random() < 0.5 else power_of_ten(rng, -3, 3)
            fields[name] = fields[name] * factor
            if name == "bandwidth_hz" and fields["block_hz"] is not None:
                fields["block_hz"] *= factor
    fields["freq_min_hz"] = np.minimum(fields["freq_min_hz"], fields["freq_max_hz"])
    return Instance(**fields)


def degenerate(rng: Rng, _seed: int) -> Instance:
    """Equal devices, absent terms, one device or sub-carrier, ranges of one point."""
    fields = draw(rng, devices=int(rng.choice([1, 2, 2, 3])))
    k = len(fields["samples"])
    if rng.random() < 0.4:  # all alike
        for name, value in fields.items():
            if isinstance(value, np.ndarray):
                fields[name] = np.repeat(value[:1], k, axis=0)
    if rng.random() < 0.3:  # sub-carriers alike
        fields["gain"] = np.ones_like(fields["gain"]) * fields["gain"].reshape(k, -1)[:, :1].reshape(
            -1, *[1] * (fields["gain"].ndim - 1)
        )
    for name in ("cycles_fixed", "cycles_lora", "capacitance"):
        if rng.random() < 0.25:
            fields[name] = fields[name] * rng.choice([0.0, 0.0, 1.0], k)
    if rng.random() < 0.15:
        fields["gain"] = fields["gain"] * (rng.random(fields["gain"].shape) < 0.6)
    if rng.random() < 0.2:
        fields["freq_min_hz"] = fields["freq_max_hz"].copy()
    if rng.random() < 0.2:
        fields["keep_max"] = np.where(rng.random(k) < 0.7, fields["keep_min"], fields["keep_max"])
    if rng.random() < 0.2:
        fields["energy_j"] = fields["energy_j"] * 1e6
    for name in ("underfit_weight", "loss_range", "lipschitz", "sparsity_weight"):
        if rng.random() < 0.15:
            bounded(fields, **{name: 0.0})
    for _ in range(int(rng.integers(2))):
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    return Instance(**fields)


def constants(rng: Rng, _seed: int) -> Instance:
    """Constants of the bound tiny, huge or zero."""
    fields = draw(rng)
    for _ in range(int(rng.integers(2))):
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    for name in ("underfit_weight", "loss_range", "lipschitz", "curvature", "sparsity_weight", "confidence_delta"):
        if rng.random() < 0.4:
            value = float(rng.choice([0.0, power_of_ten(rng, -12, -3), power_of_ten(rng, 2, 9)]))
            if name == "curvature":
                value = value or 1e-15
            if name == "confidence_delta":
                value = float(rng.choice([1e-12, 0.5, 1.0 - 1e-12]))
            bounded(fields, **{name: value})
    return Instance(**fields)


def curves(rng: Rng, _seed: int) -> Instance:
    """Measured curves of all shapes, with one more variant or none."""
    fields = draw(rng)
    if rng.random() < 0.5:
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    curve(rng, fields)
    return Instance(**fields)


def boundary(rng: Rng, _seed: int) -> Instance:
    """One budget a billionth beside the least with which a device, or the whole band, is feasible."""
    fields = draw(rng)
    if rng.random() < 0.3:
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    instance = Instance(**fields)
    side = 1.0 + float(rng.choice([-1e-9, 1e-9, -1e-6, 1e-6, 0.0, 1e-3]))
    k = int(rng.integers(instance.num_devices))
    if instance.access == "fdma" and rng.random() < 0.4:
        return _just_enough_band(instance, side)
    name = str(rng.choice(["latency_s", "energy_j", "power_max_w"]))
    value = getattr(instance, name)
    low, high = 1e-6, 1e6
    if not _alone(instance, k, name, high):
        return instance
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _alone(instance, k, name, middle) else (middle, high)
    factor = high * side
    if np.ndim(value) == 0:
        return instance.with_changes(**{name: float(value) * factor})
    return instance.with_changes(**{name: np.where(np.arange(len(value)) == k, value * factor, value)})


COLUMN = {"latency_s": T, "energy_j": E, "power_max_w": P_MAX}


def _alone(instance: Instance, k: int, name: str, factor: float) -> bool:
    """Whether a device with the whole spectrum and one budget scaled carries its first choice's least rate."""
    cell = Cell(instance)
    choice = cell.choices(k)[0]
    row, noise = cell.row(k, choice.option), np.sort(cell.noise_of(k, choice.option))
    value = np.broadcast_to(getattr(instance, name), (instance.num_devices,))[k]
    row[COLUMN[name]] += (factor - 1.0) * value  # of the energy the static part is taken off already
    wide = instance.bandwidth_hz / len(noise)
    if instance.block_hz is not None:
        wide = blocks(instance) * instance.block_hz
    return bool(carried(row, noise[np.isfinite(noise)], wide)[0] >= choice.low)


def _just_enough_band(instance: Instance, side: float) -> Instance:
    cell = Cell(instance)
    least = [cell.choices(k)[0] for k in range(instance.num_devices)]
    needs = [
        least_band(
            cell.row(k, c.option), float(cell.noise_of(k, c.option)[0]), c.low, 1e12 * instance.bandwidth_hz
        )
        for k, c in enumerate(least)
    ]
    total = math.fsum(needs)
    return instance.with_changes(bandwidth_hz=total * side) if 0.0 < total < math.inf else instance


def experts(rng: Rng, _seed: int) -> Instance:
    """Clusters, rows that fetch experts or choose neighbours, or both, with one more variant or none."""
    fields = draw(rng, devices=int(rng.choice([2, 3, 3])))
    if rng.random() < 0.6:
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    kind = rng.choice(["clusters", "rows", "both"])
    if kind != "clusters":
        fetched(rng, fields)
    if kind != "rows":
        clusters(rng, fields)
    return Instance(**fields)


def magnitudes(rng: Rng, _seed: int) -> Instance:
    """One to four numbers anywhere between 1e-30 and 1e30, constants of the bound between 1e-15 and 1e15."""
    fields = draw(rng)
    if rng.random() < 0.3:
        VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
    terms = ["underfit_weight", "loss_range", "lipschitz", "curvature", "sparsity_weight"]
    numbers = [*NUMBERS, "payload_fixed_bits", *terms]
    for name in rng.choice(numbers, int(rng.integers(1, 5)), replace=False).tolist():
        size = power_of_ten(rng, -30, 30)
        if name in terms:
            bounded(fields, **{name: float(power_of_ten(rng, -15, 15))})
        elif np.ndim(fields[name]):
            fields[name] = np.array(fields[name], dtype=np.float64)
            fields[name][... if rng.random() < 0.5 else int(rng.integers(len(fields[name])))] = size
        else:
            if name == "bandwidth_hz" and fields["block_hz"] is not None:
                fields["block_hz"] *= size / fields[name]
            fields[name] = size
    return Instance(**fields)


REGIMES: dict[str, Callable[[Rng, int], Instance]] = {
    make.__name__: make
    for make in (plain, pairs, scales, degenerate, constants, curves, boundary, experts, magnitudes)
}
