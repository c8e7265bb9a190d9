"""Plans for training: from results, and two that are no allocation: whole adapters with stragglers, or with few.

Who solves is passed in (``edgealloc.solve`` or anything like it): the trainer knows no solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count
from edgealloc.formulation.result import Result
from edgealloc.models.exchange.ranks import rank_of_label
from edgealloc.units import BoolArray, FloatArray, IntArray

Solve = Callable[[Instance], Result]

_PENALTY = 1e3  # underfitting of a device that is left out, far above what any constants give to one that is not


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What an allocation means for training: plain arrays, whoever made it.

    Parameters
    ----------
    name
        Name in tables and figures.
    keep
        Keep rates s_k. Shape [K].
    latency_s, energy_j
        What a round takes each device. Shape [K].
    deadline_s
        Round deadline T: a device that takes longer does not report.
    energy_limit_j
        Energy budgets; a device that needs more stops when its budget is spent and does not report. Shape
        [K].
    selected
        Devices that take part. Shape [K].
    ranks
        LoRA ranks that devices chose from their menus, 0 for a device that has none and trains the whole adapter;
        None where nobody has a menu. Shape [K].
    bound
        The bound's value G at these rates, and its stability term, for comparison; nan if unknown.
    rounds
        How many rounds are trained; None: as many as the options of the training say.

    Raises
    ------
    InputError
        If the arrays do not have the same length, or there is no round.
    """

    name: str
    keep: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    deadline_s: float
    energy_limit_j: FloatArray
    selected: BoolArray
    bound: float = float("nan")
    stability: float = float("nan")
    ranks: IntArray | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        count = len(self.keep)
        faults = [
            Fault(self.name, field_, f"shape {np.shape(getattr(self, field_))}", f"shape ({count},)")
            for field_ in ("latency_s", "energy_j", "energy_limit_j", "selected", "ranks")
            if getattr(self, field_) is not None and np.shape(getattr(self, field_)) != (count,)
        ]
        if self.rounds is not None and self.rounds < 1:
            faults.append(Fault(self.name, "rounds", str(self.rounds), "at least 1, or None"))
        if faults:
            raise InputError("plan", faults)

    @property
    def reports(self) -> BoolArray:
        """Devices whose update arrives. Shape [K]."""
        in_time = self.latency_s <= self.deadline_s
        return np.asarray(self.selected & in_time & (self.energy_j <= self.energy_limit_j))

    @property
    def round_s(self) -> float:
        """Length of a round in s."""
        if np.any(self.selected & ~self.reports):
            return self.deadline_s
        return float(np.max(self.latency_s[self.selected], initial=0.0))

    @property
    def round_j(self) -> float:
        """Energy of all devices in a round, in J; a budget that runs out is spent in full."""
        spent = np.minimum(self.energy_j, self.energy_limit_j)
        return float(np.sum(spent[self.selected]))


def plan_from_result(result: Result, name: str | None = None) -> Plan:
    """Read the plan off a solver's result, through the problem's own evaluation of its allocation.

    Parameters
    ----------
    result
        With an allocation.
    name
        Name in tables; the result's method by default.

    Returns
    -------
    Plan
        Its keep rates, times in s and energies in J, and the bound.

    Raises
    ------
    StatusError
        If the result carries no allocation.
    InputError
        If a row that was chosen from a menu is not a LoRA rank (``r=8``).
    """
    result.raise_for_status()
    assert result.allocation is not None
    instance = result.problem.instance
    seen = result.problem.evaluate(result.allocation)
    return Plan(
        name or result.method,
        result.allocation.keep,
        seen.latency_s,
        seen.energy_j,
        instance.latency_s,
        instance.energy_j,
        result.allocation.selected,
        seen.objective,
        seen.stability,
        _ranks(result),
    )


def _ranks(result: Result) -> IntArray | None:
    """The ranks that devices chose, 0 for those without a menu or a part in the round; None without menus.

    Raises
    ------
    InputError
        Names every device whose row is not a rank.
    """
    instance, allocation = result.problem.instance, result.allocation
    if instance.adapter_options is None or allocation is None:
        return None
    ranks, faults = np.zeros(instance.num_devices, dtype=np.int64), []
    for k, menu in enumerate(instance.adapter_options):
        if menu is not None and allocation.selected[k]:
            label = menu[int(allocation.option[k])].label
            try:
                ranks[k] = rank_of_label(label)
            except ValueError as error:
                faults.append(Fault(instance.device_names[k], "adapter_options", label, str(error)))
    if faults:
        raise InputError("plan", faults)
    return ranks


def stragglers(instance: Instance, solve: Solve) -> Plan:
    """Whole adapters from everybody in equal shares of the spectrum, late or not.

    FDMA: B/K each; resource blocks: as many whole ones as everybody can have; OFDMA: every K-th sub-carrier. A
    device that its share does not carry in time is a straggler: it spends its energy and is not heard.

    Parameters
    ----------
    instance
        The cell.
    solve
        Solves the cell of one device.
    """
    k = instance.num_devices
    latency, energy = np.full(k, np.inf), np.array(instance.energy_j)
    ranks, option = np.zeros(k, dtype=np.int64), np.full(k, -1)
    for device in range(k):
        cell = _equal_share(instance, device)
        if cell is not None and (result := solve(cell)).status.has_allocation:
            own = plan_from_result(result)
            latency[device], energy[device] = own.latency_s[0], own.energy_j[0]
            if own.ranks is not None and result.allocation is not None:
                ranks[device], option[device] = own.ranks[0], result.allocation.option[0]
    limits = (instance.latency_s, instance.energy_j)
    whole = Plan("no dropout, stragglers", np.ones(k), latency, energy, *limits, np.ones(k, dtype=bool))
    chosen = whole if instance.adapter_options is None else replace(whole, ranks=ranks)
    return _with_bound(chosen, instance, option)


def admission(instance: Instance, solve: Solve) -> Plan:
    """Whole adapters from as many samples as the cell carries in time; the other devices rest.

    The problem with selection, at keep rate 1 and a penalty that outweighs all else.

    Parameters
    ----------
    instance
        The cell.
    solve
        Solves problems with selection.

    Raises
    ------
    StatusError
        If the solver finds nothing within its limits.
    """
    ones = np.ones(instance.num_devices)
    whole = {"keep_min": ones, "keep_max": ones, "keep_levels": None, "common_keep": False}
    result = solve(instance.with_changes(exclusion_penalty=_PENALTY, **whole))
    plan = plan_from_result(result, "no dropout, admission")
    assert result.allocation is not None
    return _with_bound(plan, instance, result.allocation.option)


def _equal_share(instance: Instance, device: int) -> Instance | None:
    """Return the cell of one device that keeps everything, with its equal share; None if it gets nothing."""
    k, own, one = instance.num_devices, instance.take([device]), np.ones(1)
    changes: dict[str, object] = {"common_keep": False, "keep_min": one, "keep_max": one, "keep_levels": None}
    share = 1.0 / k
    if instance.access == "ofdma":
        assert instance.num_subcarriers is not None
        columns = np.arange(device, instance.num_subcarriers, k)
        if not columns.size:
            return None
        changes["gain"] = own.gain[:, columns]
        share = len(columns) / instance.num_subcarriers
    elif instance.access == "rb":
        assert instance.block_hz is not None
        blocks = block_count(instance.bandwidth_hz, instance.block_hz) // k
        if not blocks:
            return None
        share = blocks * instance.block_hz / instance.bandwidth_hz
    changes["bandwidth_hz"] = instance.bandwidth_hz * share
    return own.with_changes(name=f"{instance.name}, {own.device_names[0]}", **changes)


def _with_bound(plan: Plan, instance: Instance, option: IntArray) -> Plan:
    """Fill in the bound over those who report, at their menu rows [K]: the training set of the round is theirs."""
    heard = np.flatnonzero(plan.reports)
    if not heard.size:
        return replace(plan, bound=float("nan"), stability=float("nan"))
    problem = Problem(instance.take(heard).with_changes(exclusion_penalty=None))
    keep = plan.keep[heard]
    underfit, stability = problem.objective.terms(keep, option=option[heard])
    return replace(plan, bound=underfit + stability, stability=stability)
