"""Certificates: the proof of a lower bound as one JSON object, format ``edgealloc-certificate/1``.

Data, reading and writing only. What the numbers mean and why they prove anything is in docs/certificates.md;
:mod:`edgealloc.solvers.certify.write` makes them, :mod:`edgealloc.verify.certificate` checks them. Nothing in
a certificate is believed: every number is a hint that is evaluated again, and a worse hint proves less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgealloc.certificate.form import (
    FORMAT,
    OUT,
    Cut,
    Kept,
    Reader,
    constraints_entry,
    cut_to_dict,
    kept_entry,
    seal,
)
from edgealloc.data.constraints import Constraint
from edgealloc.units import FloatArray, IntArray

__all__ = ["FORMAT", "OUT", "Certificate", "Cut", "Node", "Pieces", "Planes", "Prices", "Round"]

Prices = tuple[float, ...]  # of a Hz of the band, then of the caps


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Tangent planes below the bandwidth of a device, one for each of N pieces. Shapes [N].

    Parameters
    ----------
    touch
        Keep rate at which the plane touches.
    efficiency
        Spectral efficiency log(1 + SNR) in nats at which it touches; 0: no plane, the bandwidth is only >= 0.
    mix
        Share of the energy-limited against the ``freq_max``-limited form of log b, in [0, 1].
    limit
        Constraint with a multiplier: 0 none, 1 ``freq_min``, 2 power with the energy-limited and 3 power with the
        ``freq_max``-limited upload time.
    multiplier
        Its multiplier >= 0, in Hz per J.
    """

    touch: FloatArray
    efficiency: FloatArray
    mix: FloatArray
    limit: IntArray
    multiplier: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """What devices may do, cut into N pieces. Shapes [N].

    Parameters
    ----------
    device, option
        Device, and row of its menu: 0 without a menu, -1 for leaving the device out.
    left, right
        Interval of the keep rate.
    line
        Plane below the bandwidth over the interval.
    start
        Plane below the bandwidth at the left end, for whole resource blocks; None for access ``fdma``.
    """

    device: IntArray
    option: IntArray
    left: FloatArray
    right: FloatArray
    line: Planes
    start: Planes | None = None

    def __len__(self) -> int:
        return len(self.device)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree. A leaf has prices, or neither prices nor children when no bandwidths fit in it.

    Parameters
    ----------
    parent
        Number of the node above, less than its own; -1 for the root, node 0.
    cut
        What it adds to the box of its parent; None for the root.
    price_per_hz, kept_share
        mu >= 0, and Q0 in [0, 1] where the stability term is touched, of each cluster where it is pooled by
        cluster; None unless a priced leaf.
    cap_prices
        Prices >= 0 of the caps on spectrum and participation among the constraints; none for all of them 0.
    """

    parent: int = -1
    cut: Cut | None = None
    price_per_hz: float | None = None
    kept_share: Kept | None = None
    cap_prices: tuple[float, ...] = ()

    @property
    def priced(self) -> tuple[Prices, Kept] | None:
        """Prices of band and caps, and Q0; None without."""
        if self.price_per_hz is None or self.kept_share is None:
            return None
        return (self.price_per_hz, *self.cap_prices), self.kept_share


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Pieces that are in no better allocation, for forcing one in lifts the dual value at these prices enough."""

    price_per_hz: float
    kept_share: Kept
    pieces: IntArray
    cap_prices: tuple[float, ...] = ()

    @property
    def priced(self) -> tuple[Prices, Kept]:
        """Prices of band and caps, and Q0."""
        return (self.price_per_hz, *self.cap_prices), self.kept_share


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """Proof that no allocation of an instance has an objective below ``lower_bound``.

    Parameters
    ----------
    instance_name, kind, lower_bound
        What is proved; the bound is ``inf`` (null in the file) where nothing is feasible. ``prices``: a tree of
        boxes with prices. ``common-rate``: one keep rate for all, and a rate that does not fit the spectrum.
    pieces
        See :class:`Pieces`.
    nodes, rounds
        The tree and the pieces dropped, for ``prices``.
    cap, touch
        For ``common-rate``: the rate from which on the spectrum is too small (None: it never is), and the rate
        at which the objective is touched by a line.
    constraints
        Those of the solution that the proof uses, with devices by name.
    size
        Bytes of the text it was read from, which the work of checking it may grow with; 0: made in memory.
    """

    instance_name: str
    kind: str
    lower_bound: float
    pieces: Pieces
    nodes: tuple[Node, ...] = ()
    rounds: tuple[Round, ...] = ()
    cap: float | None = None
    touch: float | None = None
    constraints: tuple[Constraint, ...] = ()
    size: int = 0

    def to_file(self) -> dict[str, Any]:
        """The JSON object, sealed with the checksum of its content."""
        data: dict[str, Any] = {
            "format": FORMAT, "instance": self.instance_name, "kind": self.kind,
            "lower_bound": None if math.isinf(self.lower_bound) else self.lower_bound,
            "pieces": _dict(self.pieces),
        }  # fmt: skip
        if self.kind == "common-rate":
            data |= {"cap": self.cap, "touch": self.touch}
        else:
            data["rounds"] = [_dict(r) for r in self.rounds]
            data["nodes"] = [_node_dict(node) for node in self.nodes]
        data |= constraints_entry(self.constraints)
        return {**data, "sha256": seal(data)}


def _dict(part: Any) -> dict[str, Any]:
    """Fields of a dataclass of arrays as lists."""
    row = {}
    for f in fields(part):
        value = getattr(part, f.name)
        if isinstance(value, np.ndarray):
            row[f.name] = value.tolist()
        elif f.name == "kept_share":
            row[f.name] = kept_entry(value)
        elif f.name == "cap_prices":
            row |= {f.name: list(value)} if value else {}
        else:
            row[f.name] = _dict(value) if isinstance(value, Planes) else value
    return row


def _node_dict(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = {"parent": node.parent}
    if node.cut is not None:
        row["cut"] = cut_to_dict(node.cut)
    if node.price_per_hz is not None and node.kept_share is not None:
        row |= {"price_per_hz": node.price_per_hz, "kept_share": kept_entry(node.kept_share)}
    if node.cap_prices:
        row["cap_prices"] = list(node.cap_prices)
    return row


class PriceReader(Reader):
    """Reads the parts of certificates by pieces and prices."""

    def planes(self, value: Any, key: str, count: int) -> Planes:
        part = self.part(value, key, {f.name for f in fields(Planes)})
        read = {name: self.floats(part[name], f"{key}.{name}", count) for name in part if name != "limit"}
        return Planes(**read, limit=self.ints(part["limit"], f"{key}.limit", count))

    def pieces(self, value: Any) -> Pieces:
        part = self.part(value, "pieces", {f.name for f in fields(Pieces)})
        device = self.ints(part["device"], "pieces.device")
        n = len(device)
        return Pieces(
            device=device,
            option=self.ints(part["option"], "pieces.option", n),
            left=self.floats(part["left"], "pieces.left", n),
            right=self.floats(part["right"], "pieces.right", n),
            line=self.planes(part["line"], "pieces.line", n),
            start=None if part["start"] is None else self.planes(part["start"], "pieces.start", n),
        )

    def rounds(self, value: Any) -> tuple[Round, ...]:
        found = []
        for i, entry in enumerate(self.listed(value, "rounds")):
            part = self.part(entry, f"rounds[{i}]", {"price_per_hz", "kept_share", "pieces"}, {"cap_prices"})
            mu = self.number(part["price_per_hz"], f"rounds[{i}].price_per_hz")
            q = self.kept(part["kept_share"], f"rounds[{i}].kept_share")
            caps = self.cap_prices(part, f"rounds[{i}].cap_prices")
            found.append(Round(mu, q, self.ints(part["pieces"], f"rounds[{i}].pieces"), caps))
        return tuple(found)

    def nodes(self, value: Any) -> tuple[Node, ...]:
        return tuple(self.node(entry, f"nodes[{i}]") for i, entry in enumerate(self.listed(value, "nodes")))

    def node(self, value: Any, key: str) -> Node:
        part = self.part(value, key, {"parent"}, {"cut", "price_per_hz", "kept_share", "cap_prices"})
        cut = self.cut(part["cut"], f"{key}.cut") if "cut" in part else None
        if ("price_per_hz" in part) is not ("kept_share" in part):
            self.fault(key, value, "both prices or none")
        both = "price_per_hz" in part and "kept_share" in part
        mu = self.number(part["price_per_hz"], f"{key}.price_per_hz") if both else None
        q = self.kept(part["kept_share"], f"{key}.kept_share") if both else None
        caps = self.cap_prices(part, f"{key}.cap_prices")
        if caps and mu is None:
            self.fault(key, value, "no prices of caps without the others")
        return Node(self.whole(part["parent"], f"{key}.parent", -1), cut, mu, q, caps)

    def cap_prices(self, part: dict[str, Any], key: str) -> tuple[float, ...]:
        """Prices of the caps; none where the part has none."""
        listed = self.listed(part.get("cap_prices", []), key)
        return tuple(self.floats(listed, key, len(listed)).tolist())
