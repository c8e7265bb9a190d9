"""Suites of the benchmark: each a function that lists its cases, registered by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

__all__ = ["SUITES", "Case", "Suite"]

# Sizes (K, M) of OFDMA cells from the smallest to the largest that the benchmark asks for.
SIZES = ((2, 8), (3, 12), (4, 16), (6, 32), (8, 64), (16, 128))


@dataclass(frozen=True, slots=True)
class Case:
    """One instance of a suite: how to draw it, and by what to multiply its budgets.

    Parameters
    ----------
    name
        Unique within its suite.
    seed
        Of the generator that draws the cell.
    options
        Arguments of :class:`~edgealloc.scenario.options.CellOptions`.
    factors
        Factor per budget: ``bandwidth_hz``, ``latency_s``, ``energy_j``.
    changes
        Further fields of the instance, as :meth:`~edgealloc.data.instance.Instance.with_changes` takes them.
    x, x_label
        Where the case stands on the axis of a sweep.
    given
        An instance that is there already, in place of one to draw.
    constraints
        Constraints of your own that every method is to meet.
    """

    name: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    x: float = float("nan")
    x_label: str = ""
    given: Instance | None = None
    constraints: tuple[Constraint, ...] = ()

    def instance(self) -> Instance:
        """The instance, drawn where it is not there already; the same case gives the same bits."""
        if self.given is not None:
            return self.given
        drawn = make_cell(CellOptions(**self.options), np.random.default_rng(self.seed)).instance
        scaled = {key: getattr(drawn, key) * factor for key, factor in self.factors.items()}
        return drawn.with_changes(name=self.name, **scaled, **self.changes)


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of cases and the methods that it is about by default."""

    name: str
    summary: str
    cases: tuple[Case, ...]
    methods: tuple[str, ...]


SUITES: dict[str, Callable[[], Suite]] = {}
_LOCAL = ("psca", "psca+")
_NAMES = ("common", "equal", "best-channel", "random", "keep-only", "spectrum-only", "alternating")
_SIMPLE = tuple(f"baseline:{name}" for name in (*_NAMES, "no-dropout", "dropout-0.3"))


def _suite(function: Callable[[], Suite]) -> Callable[[], Suite]:
    SUITES[function.__name__] = function
    return function


def _ofdma(devices: int, subcarriers: int, **more: Any) -> dict[str, Any]:
    return {"access": "ofdma", "devices": devices, "subcarriers": subcarriers, **more}


@_suite
def smoke() -> Suite:
    """A minute's worth of every access scheme, for tests and a first look."""
    cases = [
        Case("ofdma-2x8", 1, _ofdma(2, 8)),
        Case("ofdma-3x12-device", 2, _ofdma(3, 12, pooling="device")),
        Case("fdma-6", 3, {"access": "fdma", "devices": 6}),
        Case("rb-5", 4, {"access": "rb", "devices": 5}),
    ]
    return Suite(
        "smoke", "four small cells", tuple(cases), ("auto", *_LOCAL, "baseline:common", "baseline:no-dropout")
    )


@_suite
def demo() -> Suite:
    """Deadlines for one small cell: a figure in seconds."""
    factors = (0.8, 0.9, 1.0, 1.25, 1.6, 2.0, 3.0)
    cases = [
        Case(f"demo-x{f:g}", 7, _ofdma(4, 16), {"latency_s": f}, x=30.0 * f, x_label="deadline [s]")
        for f in factors
    ]
    return Suite(
        "demo", "the bound against the deadline, one small cell", tuple(cases), ("auto", *_LOCAL, *_SIMPLE)
    )


@_suite
def gap() -> Suite:
    """How far P-SCA and the simple schemes are from the proven optimum: 232 cells of every access scheme."""
    cases = []
    for k, m in SIZES:
        for tight, pooling in ((0.15, "global"), (0.3, "global"), (0.3, "device"), (0.5, "global")):
            for seed in range(5 if k > 8 else 7):
                name = f"ofdma-{k}x{m}-keep{tight:g}-{pooling}-s{seed}"
                cases.append(Case(name, 1000 * k + seed, _ofdma(k, m, reference_keep=tight, pooling=pooling)))
    for access, sizes in (("fdma", (5, 20)), ("rb", (5, 10))):
        for k in sizes:
            for underfit in ("inverse-keep", "perturbation"):
                for seed in range(9):
                    options = {"access": access, "devices": k, "underfit": underfit, "reference_keep": 0.3}
                    cases.append(Case(f"{access}-{k}-{underfit}-s{seed}", 2000 * k + seed, options))
    return Suite("gap", "distance to the proven optimum", tuple(cases), ("auto", *_LOCAL, *_SIMPLE))


def _sweep(name: str, key: str, label: str, factors: tuple[float, ...]) -> Suite:
    cases = []
    for access, options in (("ofdma", _ofdma(4, 32)), ("fdma", {"access": "fdma", "devices": 10})):
        for seed in range(5):
            for factor in factors:
                text = f"{name}-{access}-x{factor:g}-s{seed}"
                cases.append(Case(text, 300 + seed, options, {key: factor}, x=factor, x_label=label))
    return Suite(name, f"the bound against the {label}", tuple(cases), ("auto", "psca", *_SIMPLE))


@_suite
def deadline() -> Suite:
    """Deadlines from tight to loose."""
    return _sweep(
        "deadline", "latency_s", "deadline, times that of the drawn cell", (0.85, 1.0, 1.25, 1.6, 2.0, 3.0)
    )


@_suite
def energy() -> Suite:
    """Energy budgets from tight to loose."""
    return _sweep(
        "energy", "energy_j", "energy budgets, times those of the drawn cell", (0.85, 1.0, 1.25, 1.6, 2.0, 3.0)
    )


@_suite
def bandwidth() -> Suite:
    """Bandwidth from scarce to plenty."""
    return _sweep(
        "bandwidth", "bandwidth_hz", "bandwidth, times that of the drawn cell", (0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
    )


@_suite
def snr() -> Suite:
    """Cells from near to far: the radius sets the signal-to-noise ratio."""
    cases = []
    for radius in (100.0, 200.0, 300.0, 500.0):
        for seed in range(5):
            options = _ofdma(4, 32, radius_m=radius)
            cases.append(
                Case(f"radius{radius:g}-s{seed}", 400 + seed, options, x=radius, x_label="cell radius [m]")
            )
    return Suite("snr", "the bound against the cell radius", tuple(cases), ("auto", "psca", *_SIMPLE))


@_suite
def heterogeneity() -> Suite:
    """Unequal samples: the largest holds up to twenty times the smallest."""
    cases = []
    for ratio in (1, 3, 10, 20):
        for seed in range(5):
            options = _ofdma(4, 32, samples=(200, 200 * ratio))
            cases.append(
                Case(f"ratio{ratio}-s{seed}", 500 + seed, options, x=ratio, x_label="largest / smallest samples")
            )
    return Suite("heterogeneity", "the bound against unequal samples", tuple(cases), ("auto", "psca", *_SIMPLE))


@_suite
def size() -> Suite:
    """Time against size, K M from 16 to 8192."""
    cases = []
    for k, m in (*SIZES, (32, 256)):
        for seed in range(5):
            cases.append(Case(f"ofdma-{k}x{m}-s{seed}", 600 + seed, _ofdma(k, m), x=float(k * m), x_label="K M"))
    return Suite("size", "time against size", tuple(cases), ("auto", *_LOCAL))
