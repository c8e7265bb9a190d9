"""FedLEASE from end to end: warm-up, clusters, an expert per cluster, and a router over all of them.

FedLEASE, arXiv 2509.15087. What differs from the paper and its code: docs/related.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.errors import Fault, shown
from edgealloc.models.exchange.clusters import LEAST_SILHOUETTE, Dendrogram, b_distances
from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.wire import AdapterShape, State
from edgealloc.models.training.client import CLUSTER_SEEDS, FederatedOptions
from edgealloc.models.training.experts.rounds import Federation, train_routed
from edgealloc.models.training.experts.router import Router, drawn_router
from edgealloc.models.training.experts.warmup import WarmedUp, mean_start, warm_up
from edgealloc.models.training.federated import History, run
from edgealloc.models.training.ranges import number, require, whole
from edgealloc.models.training.task import Task
from edgealloc.units import FloatArray, IntArray

__all__ = ["LeaseOptions", "Leased", "run_experts"]

_WORSE = ("completed", "stopped early", "diverged")

Held = Sequence[tuple[IntArray, IntArray]]


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """How experts come about.

    Parameters
    ----------
    warmup_rounds
        Rounds that every device trains for itself before clusters are formed; 0 leaves one cluster.
    most
        Largest number of clusters that is tried.
    clusters
        Their number, where it is not to be chosen; None: by the silhouette.
    least_silhouette
        What more than one cluster has to reach.
    router
        Whether devices use the experts of other clusters beside their own.

    Raises
    ------
    InputError
        Names every number that is out of its range.
    """

    warmup_rounds: int = 2
    most: int = 4
    clusters: int | None = None
    least_silhouette: float = LEAST_SILHOUETTE
    router: bool = True

    def __post_init__(self) -> None:
        require(
            "experts",
            [
                whole("warmup_rounds", self.warmup_rounds, 0),
                whole("most", self.most, 1),
                None if self.clusters is None else whole("clusters", self.clusters, 1),
                number("least_silhouette", self.least_silhouette, -1.0, 1.0),
                None
                if isinstance(self.router, bool)
                else Fault("options", "router", shown(self.router), "True or False"),
            ],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Leased:
    """What a run with experts left behind.

    Parameters
    ----------
    labels
        The cluster of each device. Shape [K].
    dendrogram
        How devices were merged.
    warmed
        Devices after the warm-up, and what they sent.
    histories
        The run of each cluster, whose devices are those of its label, in their order.
    """

    labels: IntArray
    dendrogram: Dendrogram
    warmed: WarmedUp
    histories: tuple[History, ...]

    def summary(self) -> dict[str, Any]:
        """Return the run as one flat record: scores as the mean over devices, bits with those of the warm-up."""
        share = np.bincount(self.labels) / len(self.labels)
        parts = [history.summary() for history in self.histories]
        scores = [name for name in parts[0] if name.endswith(("_loss", "_accuracy"))]
        mean = {name: float(share @ [part[name] for part in parts]) for name in scores}
        clusters = len(parts)
        return {
            **mean,
            "upload_bits": sum(part["upload_bits"] for part in parts) + sum(self.warmed.upload_bits),
            "warmup_bits": sum(self.warmed.upload_bits),
            "clusters": clusters,
            "silhouette": self.dendrogram.silhouette(clusters),
            "ending": max(
                (part["ending"] for part in parts), key=["completed", "stopped early", "diverged"].index
            ),
            "reason": "; ".join(part["reason"] for part in parts if part["reason"]),
        }


def run_experts(
    task: Task,
    keep: ArrayLike,
    options: FederatedOptions,
    lease: LeaseOptions | None = None,
    *,
    fetched: ArrayLike | None = None,
    held: Held | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Leased:
    """Train experts for the kinds of devices that there are.

    Without a router, or with one cluster, each cluster is a federation as :func:`run` trains it; what devices send
    is merged within their cluster only, by ``options.aggregation``.

    Parameters
    ----------
    task
        What is learned.
    keep
        Keep rates [K] in (0, 1], or [rounds, K]; the warm-up drops nothing.
    options
        How, after the warm-up; ``rounds`` do not count it. The first cluster has their seed.
    lease
        How experts come about.
    fetched
        Experts that each device fetches, its own among them, 1 to M, [K]; more counts as M. None: all. The nearest
        clusters come first.
    held
        For each device the indices of validation and test examples that are its own, which its cluster is then
        scored on; None: those of the task for all.
    progress
        Called with each round's record, and the ``cluster`` that it is of.

    Returns
    -------
    Leased
        Clusters and runs. The model is left with the last one's final adapter.

    Raises
    ------
    ValueError
        For keep rates out of range, more clusters than devices, and options that do not go with a router.
    """
    lease = lease or LeaseOptions()
    count = len(task.devices)
    rates = np.broadcast_to(np.asarray(keep, dtype=float), (options.rounds, count))
    if not np.all((rates > 0) & (rates <= 1)):
        raise ValueError("keep rates must lie in (0, 1]")
    counts = np.broadcast_to(np.asarray(count if fetched is None else fetched), (count,))
    if counts.dtype.kind not in "iu" or np.any(counts < 1):
        raise ValueError("fetched: every device fetches a whole number of experts, at least its own")
    if lease.clusters is not None and lease.clusters > count:
        raise ValueError(f"{lease.clusters} clusters of {count} devices: there cannot be more")
    if held is not None and len(held) != count:
        raise ValueError(f"held: {len(held)} entries, there are {count} devices")
    if lease.router:
        require("training", _router_faults(options))
    shape = AdapterShape.from_state(task.initial, wire_dtype=options.wire_dtype, sends_a=not options.freeze_a)
    with task.feed.shortcuts():
        warmed = warm_up(task, shape, lease.warmup_rounds, options)
    dendrogram = Dendrogram.of(b_distances(warmed.states))
    clusters = lease.clusters or dendrogram.by_silhouette(lease.most, lease.least_silhouette)
    labels = dendrogram.labels(clusters)
    members = [np.flatnonzero(labels == e) for e in range(clusters)]
    tasks = [_cluster_task(task, shape, warmed, own, options, held) for own in members]
    runs = [_own_seed(options, e) for e in range(clusters)]
    if clusters == 1 or not lease.router:
        each = enumerate(zip(tasks, members, runs, strict=True))
        histories = tuple(run(one, rates[:, own], how, progress=_told(progress, e)) for e, (one, own, how) in each)
    else:
        router = Router(task.handle, clusters)
        near = _between(dendrogram.distance, members)
        cells = []
        for e, (one, own, how) in enumerate(zip(tasks, members, runs, strict=True)):
            initial: State = {**one.initial, **drawn_router(task.handle, clusters, e, options.seed)}
            order = [int(i) for i in np.argsort(near[e], kind="stable") if i != e]
            routed = replace(one, handle=router.handle, initial=initial)
            most = np.minimum(counts[own], clusters)
            cells.append(Federation(routed, rates[:, own], most, tuple(order), how))
        histories = train_routed(router, cells, progress)
    return Leased(labels, dendrogram, warmed, histories)


def _router_faults(options: FederatedOptions) -> list[Fault]:
    """What does not go with experts of other clusters beside the own one."""
    rule = options.aggregation
    asked = (
        ("scaling", options.scaling, "none"),  # the factor would count for the others, which are not dropped
        ("semantics", options.semantics, "sub-adapter"),
        ("patience", options.patience, 0),
    )
    faults = [
        Fault("options", name, str(is_), f"{must} with a router") for name, is_, must in asked if is_ != must
    ]
    if rule.robust != "none":  # what was found in a cluster's first round would not count in the next
        faults.append(Fault("options", "robust", rule.robust, "none with a router"))
    for name, value in (("correction", rule.correction), ("merge", rule.merge)):
        if value in ("exact", "stack"):  # they move the base, under one cluster's experts only
            faults.append(Fault("options", name, value, "one that leaves base weights as they are, with a router"))
    return faults


def _own_seed(options: FederatedOptions, cluster: int) -> FederatedOptions:
    """The options of a cluster: the first has the run's seed, so that one cluster is the ordinary run."""
    if cluster == 0:
        return options
    return replace(options, seed=int(round_generator(options.seed, CLUSTER_SEEDS, cluster).integers(2**31)))


def _cluster_task(
    task: Task, shape: AdapterShape, warmed: WarmedUp, own: IntArray, options: FederatedOptions, held: Held | None
) -> Task:
    """The task of some devices, from the mean of what they learned in the warm-up."""
    start = mean_start(task, shape, warmed.states, own.tolist(), options.aggregation)
    validation, test = task.validation, task.test
    if held is not None:
        validation, test = (np.unique(np.concatenate([held[k][i] for k in own])) for i in (0, 1))
    devices = tuple(task.devices[k] for k in own)
    return replace(task, devices=devices, initial=start, validation=validation, test=test)


def _between(distance: FloatArray, members: Sequence[IntArray]) -> FloatArray:
    """Mean distance between the devices of two clusters. Shape [M, M]."""
    return np.array([[distance[np.ix_(one, other)].mean() for other in members] for one in members])


def _told(
    progress: Callable[[dict[str, Any]], None] | None, cluster: int
) -> Callable[[dict[str, Any]], None] | None:
    if progress is None:
        return None
    return lambda record: progress(record | {"cluster": cluster})
