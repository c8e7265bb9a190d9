"""Which devices belong together, by the direction of the B that each learned from the common start.

FedLEASE, arXiv 2509.15087: distances by the cosine of B, average linkage, number of clusters by the silhouette.
One cluster, which the paper never tries, is an answer here. numpy and scipy only.
Which option is which paper, and what differs: docs/related.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.models.exchange.wire import State, WireArray
from edgealloc.units import FloatArray, IntArray

__all__ = ["LEAST_SILHOUETTE", "Dendrogram", "b_distances"]

LEAST_SILHOUETTE = 0.25  # what more than one cluster has to reach; its figures: docs/related.md, FedLEASE


def b_distances(states: Sequence[State]) -> FloatArray:
    """How far devices are apart: d(i, j) is the mean over layers of 1 - cos(vec B_i, vec B_j).

    Parameters
    ----------
    states
        The adapter of each device, full size, by name; all of the same layers.

    Returns
    -------
    array
        Symmetric with a zero diagonal, in [0, 2]. Two B without a direction, for they are zero, are at distance 0,
        and a zero B is at 1 from any other, as if they were orthogonal. Shape [K, K].

    Raises
    ------
    ValueError
        Without devices or layers, where devices have other layers, and for a B that is not finite.
    """
    names = sorted(name for name in states[0] if name.endswith(".lora_B.weight")) if states else []
    if not names:
        raise ValueError("clusters need devices with at least one B of LoRA")
    total = np.zeros((len(states), len(states)))
    for name in names:
        total += _layer_distances(name, [_direction(name, k, state) for k, state in enumerate(states)])
    return total / len(names)


def _direction(name: str, device: int, state: State) -> WireArray:
    """B of one layer at length 1, or zero. Shape [n_out r].

    Raises
    ------
    ValueError
        Where there is none, or it is not finite.
    """
    if name not in state:
        raise ValueError(f"device {device} has no {name}: all need the same layers")
    b = np.asarray(state[name], dtype=float).ravel()
    if not np.all(np.isfinite(b)):
        raise ValueError(f"device {device}: {name} is not finite")
    largest = np.max(np.abs(b), initial=0.0)
    if largest == 0.0:
        return b
    scaled = b / largest  # squares of what is tiny would vanish
    return np.asarray(scaled / np.linalg.norm(scaled))


def _layer_distances(name: str, directions: Sequence[WireArray]) -> FloatArray:
    """1 - cos of all pairs, shape [K, K].

    Raises
    ------
    ValueError
        For shapes that differ.
    """
    if len({d.shape for d in directions}) > 1:
        raise ValueError(f"{name} has another shape on some devices: all need the same rank")
    stacked = np.stack(directions)
    zero = ~np.any(stacked, axis=1)
    # |a - b|^2 / 2 = 1 - cos, and exactly 0 for equal directions
    apart = np.array([0.5 * np.sum(np.square(stacked - one), axis=1) for one in stacked])
    apart[zero[:, None] ^ zero[None, :]] = 1.0
    apart = np.clip(apart, 0.0, 2.0)
    return np.asarray(0.5 * (apart + apart.T))


@dataclass(frozen=True, slots=True, eq=False)
class Dendrogram:
    """Devices merged step by step, the nearest groups first.

    Parameters
    ----------
    distance
        Between devices. Shape [K, K].
    merges
        As scipy's ``linkage`` returns them. Shape [K - 1, 4].
    """

    distance: FloatArray
    merges: FloatArray

    @classmethod
    def of(cls, distance: FloatArray) -> Dendrogram:
        """Merge by average linkage.

        Parameters
        ----------
        distance
            Symmetric, finite, >= 0, with a zero diagonal. Shape [K, K].

        Returns
        -------
        Dendrogram
            Of K devices, K >= 1.

        Raises
        ------
        ValueError
            For distances that are none.
        """
        given = np.array(distance, dtype=float)
        square = given.ndim == 2 and given.shape[0] == given.shape[1] >= 1
        if not (square and np.all(given >= 0.0) and np.all(np.isfinite(given)) and not np.any(np.diag(given))):
            raise ValueError("distances: a finite [K, K] array >= 0 with a zero diagonal")
        if not np.array_equal(given, given.T):
            raise ValueError("distances: must be symmetric")
        if len(given) == 1:
            return cls(given, np.zeros((0, 4)))
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import squareform

        return cls(given, np.asarray(linkage(squareform(given), "average")))

    def labels(self, clusters: int) -> IntArray:
        """The cut into a number of clusters.

        Parameters
        ----------
        clusters
            M, of 1 to K.

        Returns
        -------
        array
            The cluster of each device, numbered from 0 in the order of their first devices. Shape [K].

        Raises
        ------
        ValueError
            For a number that is not among these.
        """
        count = len(self.distance)
        if not 1 <= clusters <= count:
            raise ValueError(f"{clusters} clusters of {count} devices: must be 1 to {count}")
        if count == 1:
            return np.zeros(1, dtype=np.intp)
        from scipy.cluster.hierarchy import cut_tree

        raw = cut_tree(self.merges, n_clusters=clusters).ravel()  # exactly as many, also where merges tie
        order = {label: i for i, label in enumerate(dict.fromkeys(raw.tolist()))}
        return np.array([order[label] for label in raw.tolist()], dtype=np.intp)

    def silhouette(self, clusters: int) -> float:
        """Mean silhouette of a cut (Rousseeuw, 1987): how much nearer devices are to their own than to the next.

        Parameters
        ----------
        clusters
            M, of 1 to K.

        Returns
        -------
        float
            In [-1, 1]; nan for one cluster, for which it is not defined. A device alone counts 0.
        """
        labels = self.labels(clusters)
        if clusters == 1:
            return float("nan")
        size = np.bincount(labels, minlength=clusters)
        to_each = np.stack([self.distance[:, labels == e].sum(axis=1) for e in range(clusters)], axis=1)
        who = np.arange(len(labels))
        own = to_each[who, labels] / np.maximum(size[labels] - 1, 1)
        others = to_each / size
        others[who, labels] = np.inf
        near = others.min(axis=1)
        scale = np.maximum(own, near)
        value = np.where((size[labels] > 1) & (scale > 0.0), (near - own) / np.where(scale > 0.0, scale, 1.0), 0.0)
        return float(value.mean())

    def by_silhouette(self, most: int, least: float = LEAST_SILHOUETTE) -> int:
        """The number of clusters of the largest silhouette, one where none reaches ``least``.

        The silhouette compares clusters with each other and cannot say that there is one only; a threshold must.

        Parameters
        ----------
        most
            Largest number of clusters, >= 1; more than there are devices counts as all of them.
        least
            What more than one cluster has to reach.

        Returns
        -------
        int
            M; of equal silhouettes the smallest.

        Raises
        ------
        ValueError
            For ``most`` below 1.
        """
        if most < 1:
            raise ValueError(f"at most {most} clusters: must be at least 1")
        values = {m: self.silhouette(m) for m in range(2, min(most, len(self.distance)) + 1)}
        best = max(values, key=lambda m: (values[m], -m), default=1)
        return best if best > 1 and values[best] >= least else 1
