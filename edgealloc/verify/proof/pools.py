r"""The stability terms that couple devices in a certificate: one of all data, or one per cluster.

With clusters e of n_e samples, w_e = n_e / n, and Q_e the mean of s^2 in a cluster by samples, each gap_e is
convex, so for any Q_e0 in [0, 1], with nu_e = gap_e'(Q_e0),

.. math:: \sum_e w_e\, \mathrm{gap}_e(Q_e) \ge \sum_e w_e (\mathrm{gap}_e(Q_{e0}) - \nu_e Q_{e0})
          + \sum_k \nu_{e(k)} w_k s_k^2 .

Which device is in which cluster, and n_e, are from the instance; a certificate has the Q_e0 only, in the order of
the clusters' names. Written from docs/model.md, *What is minimised*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.certificate.form import Kept
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray, IntArray
from edgealloc.verify.proof.enclosures import Number
from edgealloc.verify.proof.share import gap_slope, gap_value, stability

__all__ = ["Pools", "cluster_count", "kept_shares", "wrong_kept"]


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """E terms of K devices.

    Parameters
    ----------
    device
        The pool of each device. Shape [K].
    weight
        w_e; None where one pool has all devices, and a weight of 1. Shape [E].
    term
        Constants of each term (:func:`~edgealloc.verify.proof.share.stability`), numbers or of shape [E].
    """

    device: IntArray
    weight: Number | None
    term: tuple[Number, ...]

    @classmethod
    def of(cls, instance: Instance, kind: type[Number]) -> Pools | None:
        """Those of an instance; None where each device has a term of its own, which is in its share."""
        samples = kind.of(instance.samples)
        if instance.bound.pooling == "global":
            none = np.zeros(instance.num_devices, dtype=np.intp)
            return cls(none, None, stability(instance, samples.total(), kind))
        if instance.bound.pooling != "cluster":
            return None
        names, device = _clusters(instance)
        held = kind.joined([samples.take(np.flatnonzero(device == e)).total() for e in range(len(names))])
        return cls(device, held / samples.total(), stability(instance, held, kind))

    @property
    def count(self) -> int:
        """E."""
        return 1 if self.weight is None else len(self.weight.lower())

    def priced(self, at: FloatArray) -> tuple[Number, Number]:
        """Constants of the dual values [J], and prices of w s^2 of each device [J K], at Q0 of J leaves [J, E]."""
        leaves, pools = at.shape
        q, which = type(self.term[0]).of(at.ravel()), np.tile(np.arange(pools), leaves)
        term = tuple(part if part.lower().ndim == 0 else part.take(which) for part in self.term)
        slope = gap_slope(term, q)
        rest = gap_value(term, q) - slope * q
        if self.weight is not None:
            rest = rest * self.weight.take(which)
            rest = rest.joined([rest.take(slice(j * pools, (j + 1) * pools)).total() for j in range(leaves)])
        place = np.arange(leaves)[:, None] * pools + self.device
        return rest, slope.take(place.ravel())


def _clusters(instance: Instance) -> tuple[list[int], IntArray]:
    """The names of the clusters in order, and the cluster of each device by its place among them, shape [K]."""
    given = [int(name) for name in instance.clusters or () if name is not None]
    assert (
        len(given) == instance.num_devices
    )  # an instance whose terms are pooled by cluster has one of each device
    names = sorted(set(given))
    place = {name: e for e, name in enumerate(names)}
    return names, np.array([place[name] for name in given], dtype=np.intp)


def kept_shares(kept: Kept) -> list[float]:
    """Q0 of the pools, of which there is one where it is a number. Length E."""
    return list(kept) if isinstance(kept, tuple) else [kept]


def cluster_count(instance: Instance) -> int | None:
    """How many clusters the stability term is pooled by; None where it is pooled otherwise."""
    return len(_clusters(instance)[0]) if instance.bound.pooling == "cluster" else None


def wrong_kept(clusters: int | None, kept: Kept) -> str | None:
    """What Q0 has to be, where it is not: a number in [0, 1], or one of each cluster."""
    if clusters is None:
        fits, allowed = not isinstance(kept, tuple), "kept_share in [0, 1]"
    else:
        fits = isinstance(kept, tuple) and len(kept) == clusters
        allowed = (
            f"kept_share a list of {clusters} numbers in [0, 1], one of each cluster in the order of their names"
        )
    return None if fits and all(0.0 <= q <= 1.0 for q in kept_shares(kept)) else allowed
