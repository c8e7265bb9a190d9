"""What a solver returns: status, allocation, gaps and how it got there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Diagnosis, LocalStep, Snapshot, Status, excess_gap, relative_gap
from edgealloc.data.solution import Solution, finite_or_none
from edgealloc.errors import StatusError, needs, printable
from edgealloc.files.solution import dict_from_solution, save_solution
from edgealloc.formulation.listing import device_listing
from edgealloc.formulation.problem import Problem
from edgealloc.units import IntArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOTHING_SCARCE", "Result"]

FREE_TOLERANCE = 1e-6  # of the objective: nearer to the free minimum than that, no budget is worth asking for
NOTHING_SCARCE = "nothing is scarce: more spectrum, time or energy would gain nothing"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Outcome of one solve.

    Parameters
    ----------
    problem
        The problem that was solved.
    method
        Name of the method.
    status
        Why it stopped and what the allocation is.
    objective
        Generalisation bound G of the allocation, ``inf`` without one.
    lower_bound
        Proven lower bound of the optimum, ``-inf`` when the method gives none.
    free_objective
        G_free, the minimum of G without resource constraints.
    allocation
        The allocation, or None.
    seconds, nodes, iterations
        Wall-clock time in s without compiling and loading compiled code; branch-and-bound nodes; outer
        iterations.
    diagnosis
        Why the instance is infeasible; empty otherwise.
    message
        The remedy, or a remark on how the method ended.
    prices
        Dual prices that prove ``lower_bound`` (spectrum, per Hz; sparsity), where the method has them.
    trace
        One snapshot per outer iteration.
    compile_seconds
        Wall-clock time in s that went into compiling for this machine: 0 but for the first solves after
        installing. Not in the solution file.
    proof
        What a certificate is made of where the prices do not say it all; for the method's own use. Data alone,
        so that a result can be pickled.
    """

    problem: Problem
    method: str
    status: Status
    objective: float
    lower_bound: float
    free_objective: float
    allocation: Allocation | None
    seconds: float
    nodes: int = 0
    iterations: int = 0
    diagnosis: tuple[Diagnosis, ...] = ()
    message: str = ""
    prices: Mapping[str, float] = field(default_factory=dict)
    trace: tuple[Snapshot, ...] = ()
    compile_seconds: float = 0.0
    proof: Any = None

    def __post_init__(self) -> None:
        if self.allocation is not None and self.problem.constraints:
            found = self.problem.violations(self.allocation)
            if found:  # whoever made it did not look at the constraints
                raise ValueError(f"the allocation breaks a constraint or budget: {found[0]}")

    @property
    def rel_gap(self) -> float:
        """``(UB - LB) / |UB|``."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def excess_gap(self) -> float:
        """``(UB - LB) / (UB - G_free)``."""
        return excess_gap(self.objective, self.lower_bound, self.free_objective)

    @property
    def nothing_scarce(self) -> bool:
        """Whether the allocation reaches the minimum without resource constraints, to 1e-6 of the objective."""
        excess = self.objective - self.free_objective
        return self.status.has_allocation and excess <= FREE_TOLERANCE * abs(self.objective)

    def raise_for_status(self) -> Result:
        """The result itself, when it has an allocation.

        Raises
        ------
        StatusError
            Without an allocation; the message holds the status and the remedy.
        """
        if self.status.has_allocation:
            return self
        raise StatusError(f"{self.status.value}: {self.message}")

    def solution(self) -> Solution:
        """What this result claims, with the use of every budget as its problem evaluates it."""
        inst, allocation = self.problem.instance, self.allocation
        finite = finite_or_none
        claims: dict[str, Any] = dict(
            instance_name=inst.name,
            method=self.method,
            status=self.status,
            objective=finite(self.objective),
            lower_bound=finite(self.lower_bound),
            rel_gap=finite(self.rel_gap),
            excess_gap=finite(self.excess_gap),
            free_objective=finite(self.free_objective),
            seconds=float(self.seconds),
            message=self.message,
            diagnosis=self.diagnosis,
            constraints=self.problem.constraints,
        )
        if allocation is None or not self.status.has_allocation:
            return Solution(**claims)
        use, on = self.problem.evaluate(allocation), allocation.selected
        keep = np.where(on, allocation.keep, 0.0)
        menus = inst.adapter_options or (None,) * inst.num_devices
        labels = tuple(
            menu[row].label if menu is not None and chosen and row >= 0 else None
            for menu, row, chosen in zip(menus, allocation.option.tolist(), on.tolist(), strict=True)
        )
        carriers: tuple[tuple[int, ...] | None, ...] = (None,) * inst.num_devices
        power: tuple[float | tuple[float, ...], ...]
        if allocation.owner is not None:
            mine = _carriers_by_device(allocation.owner, inst.num_devices)
            watts = allocation.power_w.tolist()
            power = tuple(tuple(watts[m] for m in own) for own in mine)
            carriers, bandwidth = mine, np.full(inst.num_devices, np.nan)
        else:
            assert allocation.bandwidth_hz is not None
            bandwidth = np.where(on, allocation.bandwidth_hz, 0.0)
            power = tuple(np.where(on, allocation.power_w, 0.0).tolist())
        return Solution(
            **claims,
            device_names=inst.device_names,
            keep=keep,
            dropout=1.0 - keep,
            freq_hz=np.where(on, allocation.freq_hz, 0.0),
            rate_bps=use.rate_bps,
            latency_s=use.latency_s,
            energy_j=use.energy_j,
            selected=on,
            adapter_option=labels,
            bandwidth_hz=bandwidth,
            subcarriers=carriers,
            power_w=power,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per device, indexed by name: the columns of the solution file, slack and binding budgets.

        ``latency_slack_s`` and ``energy_slack_j`` are what is left of the budgets in s and J, ``binding`` names
        the constraints with no room left. No rows without an allocation.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        needs("pandas", "frame", "a table of results")
        import pandas as pd

        frame = pd.DataFrame(dict_from_solution(self.solution())["devices"])
        if frame.empty or self.allocation is None:
            return frame
        use = self.problem.evaluate(self.allocation)
        frame["latency_slack_s"] = use.latency_slack_s
        frame["energy_slack_j"] = use.energy_slack_j
        frame["binding"] = [", ".join(names) for names in use.binding]
        return frame.set_index("name")

    def trace_frame(self) -> pd.DataFrame:
        """One row per snapshot of the trace, indexed by ``iteration`` from 1; the same columns for every method.

        ``method``, ``seconds``, ``lower_bound``, ``objective``, ``rel_gap``, ``nodes``, ``open_nodes``, ``note``,
        and the numbers of :class:`~edgealloc.data.outcome.LocalStep`, which only ``psca`` has: ``<NA>`` for its
        counts and NaN for its other numbers elsewhere. Bounds that do not exist yet are infinite, as in the trace.

        Raises
        ------
        MissingPackageError
            Without pandas.
        """
        needs("pandas", "frame", "a table of the trace")
        import pandas as pd

        kinds = {"int": "Int64", "float": "float64", "str": "str"}
        plain = {f.name: kinds[str(f.type)] for f in fields(Snapshot) if f.name != "step"}
        steps = {f.name: kinds[str(f.type)] for f in fields(LocalStep)}
        columns = {name: [getattr(at, name) for at in self.trace] for name in plain}
        columns |= {name: [getattr(at.step, name, None) for at in self.trace] for name in steps}
        frame = pd.DataFrame(
            {name: pd.Series(columns[name], dtype=kind) for name, kind in (plain | steps).items()}
        )
        whole = ("iteration", "nodes", "open_nodes")  # of every method, so that none is missing
        return frame.astype(dict.fromkeys(whole, "int64")).set_index("iteration")

    def to_latex(self, max_rows: int = 40) -> str:
        r"""What every device got, as a ``tabular`` of LaTeX; needs ``\usepackage{booktabs}``.

        Parameters
        ----------
        max_rows
            Of more devices the two ends of the list by keep rate are shown.

        Returns
        -------
        str
            The table, with the name of the instance as a comment above it.

        Raises
        ------
        StatusError
            Without an allocation.
        """
        allocation = self.raise_for_status().allocation
        assert allocation is not None
        return device_listing(self.problem, allocation, max_rows).latex()

    def _repr_html_(self) -> str:
        head = f"<pre>{escape(printable(repr(self), lines=True))}</pre>"
        if self.allocation is None or not self.status.has_allocation:
            return head
        return head + device_listing(self.problem, self.allocation, 20).html()

    def save(self, path: str | Path) -> Path:
        """Write the solution as an ``edgealloc-solution/1`` JSON file; the file appears whole or not at all.

        Parameters
        ----------
        path
            Where to; an existing file is replaced.

        Returns
        -------
        pathlib.Path
            The path.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        return save_solution(self.solution(), path)

    def __repr__(self) -> str:
        instance = self.problem.instance
        head = f"Result: {self.status.value} by {self.method} on {instance.name!r} ({instance.num_devices} devices"
        carriers = instance.num_subcarriers
        head += f", {carriers} sub-carriers)" if carriers else ")"
        if self.status.has_allocation:
            keep = self.allocation.keep[self.allocation.selected] if self.allocation else np.zeros(0)
            span = f"{keep.min():.3f} to {keep.max():.3f}" if keep.size else "none selected"
            proof = f"  bound {self.lower_bound:.9g}, rel_gap {self.rel_gap:.2g}, excess_gap {self.excess_gap:.2g}"
            value = f"  objective {self.objective:.9g} (free {self.free_objective:.6g}), keep rates {span}"
            if self.nothing_scarce:
                value += f"\n  {NOTHING_SCARCE}"
        else:
            value = f"  no allocation; free objective {self.free_objective:.6g}, bound {self.lower_bound:.6g}"
            proof = f"  {self.message.splitlines()[0] if self.message else ''}"
        effort = f"  {self.seconds:.3g} s, {self.iterations} iterations, {self.nodes} nodes"
        lines = [head, value, proof, effort]
        if instance.assumed:
            lines.append(f"  assumed (not given): {instance.assumed_text()}")
        return "\n".join(lines)


def _carriers_by_device(owner: IntArray, num_devices: int) -> tuple[tuple[int, ...], ...]:
    mine: list[list[int]] = [[] for _ in range(num_devices)]
    for carrier, device in enumerate(owner.tolist()):
        if device >= 0:
            mine[device].append(carrier)
    return tuple(tuple(carriers) for carriers in mine)
