"""R rounds of one cell under fading that is correlated in time: policies compared on the same rounds.

Every policy sees the same channels, arrivals and departures, spends from the same batteries, and is judged by the
same bound. ``simulate(options, cell, rng)`` gives one row per policy, method and round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError, needs
from edgealloc.formulation.result import Result
from edgealloc.rounds.policies import POLICIES, RoundView, make_policy
from edgealloc.rounds.solver import RoundSolver
from edgealloc.runs.begun.ledger import EnergyLedger
from edgealloc.scenario.cell import Cell, next_round
from edgealloc.solvers.base import Control
from edgealloc.solvers.compiling.clock import Clock
from edgealloc.units import BoolArray, FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SimulateOptions", "Trace", "draw_rounds", "simulate", "summary"]


def _option(default: Any, help_: str) -> Any:
    return field(default=default, metadata={"help": help_})


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What is simulated; each field carries its help in ``metadata["help"]``."""

    rounds: int = _option(200, "rounds R of the horizon")
    correlation: float = _option(0.9, "correlation of the channel amplitudes of successive rounds")
    policies: tuple[str, ...] = _option(tuple(POLICIES), "energy policies: " + ", ".join(POLICIES))
    methods: tuple[str, ...] = _option(("auto",), "methods that allocate the rounds, as for `solve`")
    energy_share: float = _option(0.5, "horizon budget of a device, as a share of R times its energy_j")
    leave: float = _option(0.0, "probability that a device that is there is away in the next round")
    come_back: float = _option(0.5, "probability that a device that is away is back in the next round")
    spectrum_factor: float = _option(1.5, "spectrum over what the cell bought for its first channel")
    exclusion_penalty: float | None = _option(None, "devices may be left out of a round at this penalty")
    time_budget_s: float | None = _option(None, "wall-clock time in s that a round may take")

    def __post_init__(self) -> None:
        rules = (
            (self.rounds >= 1, "rounds", "an integer >= 1"),
            (-1.0 <= self.correlation <= 1.0, "correlation", "in [-1, 1]"),
            (set(self.policies) <= set(POLICIES) and bool(self.policies), "policies", ", ".join(POLICIES)),
            (bool(self.methods), "methods", "at least one"),
            (0.0 < self.energy_share < math.inf, "energy_share", "a finite number > 0"),
            (0.0 <= self.leave < 1.0, "leave", "in [0, 1)"),
            (0.0 < self.come_back <= 1.0, "come_back", "in (0, 1]"),
            (0.0 < self.spectrum_factor < math.inf, "spectrum_factor", "a finite number > 0"),
        )
        faults = [
            Fault("simulation", name, repr(getattr(self, name)), allowed) for ok, name, allowed in rules if not ok
        ]
        if faults:
            raise InputError("simulation", faults)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The rounds that every policy sees: channel gains [R, K] or [R, K, M], and who is there [R, K]."""

    base: Instance
    gain: FloatArray
    present: BoolArray

    def instance(self, number: int, caps_j: FloatArray) -> Instance:
        """The instance of a round under energy caps in J, shape [K]; who is away or has none is not in it."""
        on = self.present[number] & (caps_j > 0.0)
        whole = self.base.with_changes(gain=self.gain[number], energy_j=np.where(on, caps_j, 1.0))
        return whole if on.all() else whole.take(np.flatnonzero(on))


def draw_rounds(options: SimulateOptions, cell: Cell, rng: np.random.Generator) -> Trace:
    """Channels and presence of all rounds; at least one device is there in each."""
    base = cell.instance.with_changes(
        bandwidth_hz=options.spectrum_factor * cell.instance.bandwidth_hz,
        exclusion_penalty=options.exclusion_penalty,
    )
    on = np.ones(base.num_devices, dtype=bool)
    gains, present = [], []
    for _ in range(options.rounds):
        cell = next_round(cell, options.correlation, rng)
        draw = rng.random(base.num_devices)
        on = np.where(on, draw >= options.leave, draw < options.come_back)
        if not on.any():
            on[int(rng.integers(base.num_devices))] = True
        gains.append(cell.instance.gain)
        present.append(on)
    return Trace(base, np.stack(gains), np.stack(present))


def simulate(options: SimulateOptions, cell: Cell, rng: np.random.Generator) -> pd.DataFrame:
    """Play every policy with every method through the same rounds.

    Parameters
    ----------
    options
        Rounds, policies and methods.
    cell
        Where the rounds begin.
    rng
        Source of all randomness; the same state gives the same rounds.

    Returns
    -------
    pandas.DataFrame
        One row per policy, method and round: ``policy``, ``method``, ``round``, ``present``, ``selected``,
        ``status``, ``objective``, ``lower_bound``, ``free_objective``, ``excess`` (objective less the free one),
        ``rel_gap``, ``energy_j`` (spent by all), ``most_used`` (of the horizon budget, by the device that spent
        the largest share, up to and with this round), ``seconds``. Numbers of an allocation are NaN in a round
        without one.

    Raises
    ------
    MissingPackageError
        Without pandas.
    KeyboardInterrupt
        By Ctrl-C, also in the middle of a solve.
    """
    needs("pandas", "frame", "a table of rounds")
    import pandas as pd

    trace = draw_rounds(options, cell, rng)
    rows = [
        row
        for method in options.methods
        for policy in options.policies
        for row in _play(options, trace, policy, method)
    ]
    return pd.DataFrame(rows)


def _play(options: SimulateOptions, trace: Trace, policy_name: str, method: str) -> list[dict[str, Any]]:
    """One policy through all rounds."""
    base, names = trace.base, trace.base.device_names
    budget = options.energy_share * options.rounds * base.energy_j
    ledger = EnergyLedger(dict(zip(names, budget.tolist(), strict=True)), options.rounds)
    policy, solver = make_policy(policy_name), RoundSolver(method, time_budget_s=options.time_budget_s)
    place = {name: i for i, name in enumerate(names)}
    rows: list[dict[str, Any]] = []
    for number in range(options.rounds):
        clock = Clock()
        left = ledger.left_j(names)
        if not np.any(trace.present[number] & (left > 0.0)):
            rows.append(_row(policy_name, method, number, 0, None, ledger, budget, 0.0, 0.0))
            continue
        shown = trace.instance(number, left)
        at = np.array([place[name] for name in shown.device_names])

        def probe(caps: FloatArray, shown: Instance = shown) -> Result:
            return solver.solve(shown.with_changes(energy_j=caps))

        view = RoundView(shown, left[at], budget[at], number, options.rounds, probe)
        with Control.of_a_series():
            result = probe(np.minimum(policy.caps_j(view), view.left_j))
        spent = np.zeros(len(at))
        if result.allocation is not None:
            spent = result.problem.evaluate(result.allocation).energy_j
            ledger.spend(shown.device_names, spent)
        seconds = clock.seconds
        rows.append(
            _row(policy_name, method, number, len(at), result, ledger, budget, float(spent.sum()), seconds)
        )
    return rows


def _row(
    policy: str,
    method: str,
    number: int,
    present: int,
    result: Result | None,
    ledger: EnergyLedger,
    budget: FloatArray,
    energy_j: float,
    seconds: float,
) -> dict[str, Any]:
    nan = math.nan
    names = tuple(ledger.budget_j)
    row: dict[str, Any] = {"policy": policy, "method": method, "round": number, "present": present}
    row |= {"selected": 0, "status": "no_devices" if result is None else result.status.value}
    row |= dict.fromkeys(("objective", "lower_bound", "free_objective", "excess", "rel_gap"), nan)
    if result is not None and result.allocation is not None:
        row |= {
            "selected": int(result.allocation.selected.sum()),
            "objective": result.objective,
            "lower_bound": result.lower_bound,
            "free_objective": result.free_objective,
            "excess": result.objective - result.free_objective,
            "rel_gap": result.rel_gap,
        }
    most_used = float(np.max(1.0 - ledger.left_j(names) / budget))
    return row | {"energy_j": energy_j, "most_used": most_used, "seconds": seconds}


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over the rounds in which *every* policy has an allocation, so that all are judged on the same rounds.

    Parameters
    ----------
    frame
        What :func:`simulate` gave.

    Returns
    -------
    pandas.DataFrame
        One row per policy and method: means of ``objective``, ``excess``, ``rel_gap`` and ``selected`` over those
        rounds, which ``rounds`` counts; ``energy_j`` in J over all rounds, the largest ``most_used``, the median
        of ``seconds``; ``without`` counts the rounds in which the policy itself has no allocation.
    """
    served = frame.assign(served=frame["objective"].notna())
    common = served.groupby("round")["served"].transform("all")
    keys = ["policy", "method"]
    means = served[common].groupby(keys, sort=False)[["objective", "excess", "rel_gap", "selected"]].mean()
    count = served[common].groupby(keys, sort=False).size().rename("rounds")
    whole = served.groupby(keys, sort=False)
    table = whole.agg(energy_j=("energy_j", "sum"), most_used=("most_used", "max"), seconds=("seconds", "median"))
    table["without"] = whole["served"].agg(lambda column: int((~column).sum()))
    return table.join(count).join(means).reset_index()
