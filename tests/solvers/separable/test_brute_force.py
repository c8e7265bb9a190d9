"""Branch and bound against brute force: no claimed bound above the true optimum, for any mix of variants.

The brute force enumerates menus, levels and selection, and for continuous keep rates a grid that zooms in on
its best point; whatever it finds is feasible, so it can only be at or above the true optimum. A lower bound
above it is wrong, and so is an optimum that it beats.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve
from edgealloc.files.instance import save_instance
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.fdma.bandwidth import least_bandwidth
from edgealloc.solvers.row import device_rows
from edgealloc.verify.solution import verify_files

OUT = -1
Choice = tuple[int, float, float, float, float]  # menu row or OUT, keep rate, bandwidth, own cost, kept share


def random_instance(seed: int, *, common: bool = False) -> Instance:
    """A small instance with any mix of variants, its spectrum between scarce and ample."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 4))

    def spread(low: float, high: float, size: int | None = None) -> Any:
        return np.exp(rng.uniform(np.log(low), np.log(high), size))

    underfit = str(rng.choice(["inverse-keep", "perturbation", "curve"]))
    knots = UnderfitCurve(np.array([0.02, 0.1, 0.25, 0.4, 0.7, 1.0]), np.sort(rng.uniform(0, 2, 6))[::-1])
    bound = BoundSpec(
        underfit=underfit,  # type: ignore[arg-type]
        underfit_weight=float(spread(1e-3, 2.0)),
        pooling=str(rng.choice(["global", "device"])),  # type: ignore[arg-type]
        lipschitz=float(spread(0.1, 3.0)),
        curvature=float(spread(0.01, 1.0)),
        sparsity_weight=float(rng.choice([0.0, spread(0.01, 3.0)])),
        underfit_curve=knots if underfit == "curve" else None,
    )
    grid = np.arange(1, 21) / 20
    levels = menus = None
    if rng.random() < 0.5:
        shared = rng.choice(grid, 4, replace=False)
        draw = (lambda: shared) if common else (lambda: rng.choice(grid, int(rng.integers(1, 5)), replace=False))
        levels = tuple(None if rng.random() < 0.2 else np.sort(draw()) for _ in range(k))
    if rng.random() < 0.5:
        menus = tuple(
            tuple(
                AdapterOption(f"r={row}", float(spread(1e6, 1e7)), float(spread(1e6, 1e9)), float(spread(0.5, 2)))
                for row in range(int(rng.integers(1, 4)))
            )
            if rng.random() < 0.7
            else None
            for _ in range(k)
        )
    access = str(rng.choice(["fdma", "rb"]))
    bandwidth = float(spread(2e4, 2e6))
    own = np.random.default_rng(seed + 10**6)  # drawn apart: what was drawn before stays
    if menus is not None and own.random() < 0.4:
        menus = tuple(
            menu
            and tuple(
                replace(row, gain=float(np.exp(own.uniform(*np.log([1e-13, 1e-10])))))
                if own.random() < 0.7
                else row
                for row in menu
            )
            for menu in menus
        )
    return Instance(
        name=f"random-{seed}",
        access=access,  # type: ignore[arg-type]
        bandwidth_hz=bandwidth,
        noise_psd_dbm_per_hz=-174.0,
        latency_s=float(rng.choice([6.0, 12.0, 20.0, 20.0])),
        bound=bound,
        samples=rng.integers(50, 1000, k),
        gain=spread(1e-13, 1e-10, k),
        power_max_w=spread(0.01, 0.5, k),
        energy_j=spread(2.0, 10.0, k),
        energy_static_j=rng.choice([0.0, 0.05]),
        payload_fixed_bits=rng.choice([0.0, 1e5]),
        payload_lora_bits=spread(1e6, 2e7, k),
        cycles_fixed=spread(1e9, 1.2e10, k),
        cycles_lora=spread(1e6, 1e9, k),
        freq_min_hz=3e8,
        freq_max_hz=2e9,
        capacitance=1e-28,
        downlink_bps=np.where(rng.random(k) < 0.5, np.inf, 1e7),
        keep_min=0.03,
        keep_max=1.0 if levels or rng.random() < 0.7 else rng.uniform(0.3, 1.0, k),
        keep_levels=levels,
        adapter_options=menus,
        block_hz=bandwidth / float(rng.uniform(k + 1, 30)) if access == "rb" else None,
        common_keep=common,
        exclusion_penalty=float(spread(0.3, 10.0)) if rng.random() < 0.5 else None,
    )


class Brute:
    """Brute force over grids of keep rates; see the module."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.inst = problem, problem.instance
        menus = self.inst.adapter_options or (None,) * self.inst.num_devices
        self.menus = menus
        self.rows, self.factor = [], []
        for row in range(max((len(menu) for menu in menus if menu), default=1)):
            option = np.array([min(row, len(menu) - 1) if menu else 0 for menu in menus], dtype=np.intp)
            adapter = chosen_adapter(self.inst, option)
            self.rows.append(device_rows(self.inst, adapter))
            self.factor.append(adapter.underfit_factor)

    def _choice(self, k: int, row: int, keep: float) -> Choice | None:
        inst, w = self.inst, float(self.inst.weights[k])
        band = float(least_bandwidth(self.rows[row][k], keep, 0.0)[0])
        if inst.block_hz and math.isfinite(band):
            band = inst.block_hz * math.ceil(band / inst.block_hz * (1 + 1e-11))
        band *= 1 + 1e-11
        if not band <= inst.bandwidth_hz * (1 + 1e-10):
            return None
        cost = (
            inst.bound.underfit_weight
            * w
            * self.factor[row][k]
            * float(self.problem.underfit.at(np.array([k]), np.array([keep]))[0])
        )
        return row, keep, band, cost + self._own(k, keep), w * keep**2

    def _own(self, k: int, keep: float) -> float:
        if self.problem.pooled:
            return 0.0
        square = np.full(self.inst.num_devices, keep**2)
        return float(self.inst.weights[k] * self.problem.stability.value(square)[k])

    def choices(self, k: int, rates: np.ndarray) -> list[Choice]:
        """All that device k may do at these rates (its levels among them), and being left out."""
        inst = self.inst
        levels = inst.keep_levels[k] if inst.keep_levels is not None else None
        inside = (rates >= inst.keep_min[k]) & (rates <= inst.keep_max[k])
        if levels is not None:
            inside &= np.isin(rates, levels)
        depth = len(self.menus[k] or (None,))
        found = [self._choice(k, row, float(s)) for row in range(depth) for s in rates[inside]]
        out: list[Choice] = []
        if inst.exclusion_penalty is not None:
            cost = inst.bound.underfit_weight * float(inst.weights[k]) * inst.exclusion_penalty + self._own(k, 0.0)
            out.append((OUT, 0.0, 0.0, cost, 0.0))
        return out + [choice for choice in found if choice is not None]

    def _best_of(self, lists: list[list[Choice]]) -> tuple[float, list[Choice]]:
        """The best combination that fits, all at once."""
        if any(not own for own in lists):
            return math.inf, []
        total = np.zeros((3, 1))
        for own in lists:
            table = np.array([choice[2:] for choice in own]).T
            total = (total[:, :, None] + table[:, None, :]).reshape(3, -1)
        gap = self.problem.stability.value(np.minimum(total[2], 1.0)) if self.problem.pooled else 0.0
        limit = self.inst.bandwidth_hz
        if self.inst.block_hz:  # whole blocks, counted
            limit = self.inst.block_hz * (math.floor(limit / self.inst.block_hz * (1 + 1e-13)) + 0.5)
        value = np.where(total[0] <= limit, total[1] + gap, np.inf)
        at = int(np.argmin(value))
        index = np.unravel_index(at, [len(own) for own in lists])
        return float(value[at]), [own[int(i)] for own, i in zip(lists, index, strict=True)]

    def levels(self) -> np.ndarray:
        every = [level for level in self.inst.keep_levels or () if level is not None]
        return np.unique(np.concatenate([np.zeros(0), *every]))

    def best(self, points: int = 25, zooms: int = 9) -> float:
        """Value of the best point found."""
        inst, k = self.inst, self.inst.num_devices
        low, high = float(inst.keep_min.min()), float(inst.keep_max.max())
        coarse = np.geomspace(low, high, points)
        coarse[0], coarse[-1] = low, high
        ratio = (high / low) ** (1.0 / (points - 1)) if high > low else 1.0
        if inst.common_keep:
            return self._best_common(np.geomspace(low, high, 40 * points), ratio ** (1 / 40), zooms)
        rates = [np.union1d(coarse, np.append(self.levels(), inst.keep_max[i])) for i in range(k)]
        value, picks = self._best_of([self.choices(i, rates[i]) for i in range(k)])
        for _ in range(zooms):
            if not picks:
                return value
            ratio = ratio**0.35
            lists = []
            for i, (row, keep, *_rest) in enumerate(picks):
                near = [] if row == OUT else keep * ratio ** np.linspace(-3, 3, 15)
                near = np.append(near, keep) if row != OUT else np.zeros(0)
                lists.append([picks[i], *self.choices(i, np.append(near, self.levels()))])
            new, picks_new = self._best_of(lists)
            if new <= value:
                value, picks = new, picks_new
        return value

    def _best_common(self, rates: np.ndarray, ratio: float, zooms: int) -> float:
        best = math.inf
        for zoom in range(zooms):
            every = np.union1d(rates, self.levels()) if zoom == 0 else rates
            values = [
                self._best_of([self.choices(i, np.array([s])) for i in range(self.inst.num_devices)])[0]
                for s in every
            ]
            at = int(np.argmin(values))
            best = min(best, values[at])
            rates = every[at] * ratio ** np.linspace(-1, 1, 21)
            ratio **= 0.1
        return best


def check(instance: Instance, rel_gap: float) -> Status:
    """Solve and compare with brute force."""
    problem = Problem(instance)
    result = solve(problem, "bnb", rel_gap=rel_gap, time_limit=300)
    best = Brute(problem).best()
    slack = 1e-9 * abs(best) if math.isfinite(best) else 0.0
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE), f"{result!r} {result.message}"
    assert result.lower_bound <= best + slack, f"bound {result.lower_bound} above a feasible point {best}"
    if result.status is Status.INFEASIBLE:
        assert math.isinf(best)
        assert result.diagnosis
        return result.status
    assert result.allocation is not None
    use = problem.evaluate(result.allocation)
    assert use.feasible, use.violations
    assert use.objective == pytest.approx(result.objective, rel=1e-12)
    assert result.rel_gap <= rel_gap
    assert result.objective <= best * (1 + rel_gap) + slack
    return result.status


@pytest.mark.parametrize("batch", [0, 1, 2, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (3, 4, 5))])
def test_brute_force(batch: int) -> None:
    ends = [check(random_instance(seed), 1e-6) for seed in range(20 * batch, 20 * batch + 20)]
    assert ends.count(Status.OPTIMAL) >= 15


@pytest.mark.parametrize(("seeds", "least"), [(range(4), 2), pytest.param(range(20), 12, marks=pytest.mark.slow)])
def test_brute_force_with_a_common_rate(seeds: range, least: int) -> None:
    ends = [check(random_instance(seed, common=True), 1e-5) for seed in seeds]
    assert ends.count(Status.OPTIMAL) >= least


@pytest.mark.parametrize(
    "seeds", [range(0, 45, 3), pytest.param(range(45, 120, 3), marks=pytest.mark.slow)], ids=str
)
def test_the_checker_accepts_every_claim(seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        instance = random_instance(seed, common=seed % 5 == 4)
        save_instance(instance, tmp_path / "case.json")
        solve(instance, "bnb", rel_gap=1e-5).save(tmp_path / "solution.json")
        report = verify_files(tmp_path / "case.json", tmp_path / "solution.json", rel_gap=1e-5)
        assert report.ok, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(100))
def test_brute_force_at_length(batch: int) -> None:
    for seed in range(10_000 + 30 * batch, 10_030 + 30 * batch):
        check(random_instance(seed, common=seed % 5 == 4), 1e-5)
