"""How many experts: one exact allocation per cut of the dendrogram, beside what the silhouette says.

The silhouette asks whether devices differ. The bound asks whether it is worth it: an expert is learned from the
samples of its cluster only, so its stability term is larger, and what it gains is less underfitting.
Derived: docs/related.md, *FedLEASE*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, Pooling
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.models.exchange.clusters import LEAST_SILHOUETTE, Dendrogram
from edgealloc.units import IntArray

__all__ = ["Cut", "ExpertsPlan", "cut_instance", "plan_experts"]

Menus = Callable[[int, IntArray], Sequence[Sequence[AdapterOption] | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One number of experts.

    Parameters
    ----------
    clusters
        M.
    labels
        The cluster of each device. Shape [K].
    silhouette
        Of the cut; nan for one cluster.
    result
        The allocation under it, with its proven bound.
    """

    clusters: int
    labels: IntArray
    silhouette: float
    result: Result


@dataclass(frozen=True, slots=True, eq=False)
class ExpertsPlan:
    """All cuts, and what both rules choose.

    Parameters
    ----------
    cuts
        From one cluster on.
    by_bound
        The number of experts of the least objective; None where no cut has an allocation.
    by_silhouette
        That of the largest silhouette, 1 where none is large enough.
    decided
        Whether ``by_bound`` is proved: its objective is not above the lower bound of any other cut.
    """

    cuts: tuple[Cut, ...]
    by_bound: int | None
    by_silhouette: int
    decided: bool

    def records(self) -> list[dict[str, Any]]:
        """Return a flat record per cut: clusters, silhouette, status, objective, lower bound, who chooses it."""
        return [
            {
                "clusters": cut.clusters,
                "silhouette": cut.silhouette,
                "status": cut.result.status.value,
                "objective": cut.result.objective,
                "lower_bound": cut.result.lower_bound,
                "by_bound": cut.clusters == self.by_bound,
                "by_silhouette": cut.clusters == self.by_silhouette,
            }
            for cut in self.cuts
        ]


def cut_instance(instance: Instance, labels: IntArray, underfit_factor: float = 1.0) -> Instance:
    """An instance whose stability term is pooled by some clusters.

    Parameters
    ----------
    instance
        The cell; its own pooling does not count.
    labels
        The cluster of each device. Shape [K].
    underfit_factor
        Multiplies the underfitting of all devices: what experts gain.

    Returns
    -------
    Instance
        One cluster is pooling ``global``, a cluster each is pooling ``device``: what is solved then is the same,
        and every method takes it.

    Raises
    ------
    InputError
        Where labels or factor are none.
    """
    named = [int(label) for label in labels]
    kinds = len(set(named))
    pooling: Pooling = "global" if kinds == 1 else "device" if kinds == instance.num_devices else "cluster"
    weight = instance.bound.underfit_weight * underfit_factor
    spec = replace(instance.bound, pooling=pooling, underfit_weight=weight)
    return instance.with_changes(bound=spec, clusters=named)


def plan_experts(
    instance: Instance,
    dendrogram: Dendrogram,
    most: int = 4,
    *,
    underfit_factor: Mapping[int, float] | None = None,
    menus: Menus | None = None,
    least_silhouette: float = LEAST_SILHOUETTE,
    **options: Any,
) -> ExpertsPlan:
    """Solve the allocation for every number of experts.

    Parameters
    ----------
    instance
        The cell, its devices in the order of the dendrogram's. Its pooling is replaced by that of each cut.
    dendrogram
        How devices were merged.
    most
        Largest number of experts that is tried.
    underfit_factor
        For numbers of experts the factor on underfitting, as measured; 1 where none is given: no gain is known.
        With 1 for all, one expert is never worse, for pooling more samples only lessens the stability term.
    menus
        Makes the adapter menus of a cut, for its number of clusters and its labels, for example rows of how many
        experts a device fetches; None: those of the instance.
    least_silhouette
        What more than one cluster has to reach by the silhouette.
    **options
        For :func:`edgealloc.solve`: ``method``, ``rel_gap``, ``time_limit`` per cut, ...

    Returns
    -------
    ExpertsPlan
        Every cut with its proven bound, and both choices.

    Raises
    ------
    InputError
        For another number of devices, or fewer than one expert.
    """
    count = len(dendrogram.distance)
    faults = []
    if count != instance.num_devices:
        faults.append(
            Fault("experts", "dendrogram", f"of {count} devices", f"of {instance.num_devices}, as the cell")
        )
    if most < 1:
        faults.append(Fault("experts", "most", str(most), "at least 1"))
    if faults:
        raise InputError("experts", faults)
    cuts = []
    for m in range(1, min(most, count) + 1):
        labels = dendrogram.labels(m)
        cell = cut_instance(instance, labels, (underfit_factor or {}).get(m, 1.0))
        if menus is not None:
            cell = cell.with_changes(adapter_options=menus(m, labels))
        cuts.append(Cut(m, labels, dendrogram.silhouette(m), solve(cell, **options)))
    found = [cut for cut in cuts if cut.result.allocation is not None]
    best = min(found, key=lambda cut: (cut.result.objective, cut.clusters), default=None)
    others = [cut.result.lower_bound for cut in cuts if cut is not best]
    decided = best is not None and all(best.result.objective <= bound for bound in others)
    chosen = None if best is None else best.clusters
    return ExpertsPlan(tuple(cuts), chosen, dendrogram.by_silhouette(most, least_silhouette), decided)
