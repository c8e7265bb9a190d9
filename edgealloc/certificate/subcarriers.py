"""Certificates of kind ``subcarriers``: the proof of a lower bound, or of infeasibility, for access ``ofdma``.

Data and reading only, see :mod:`edgealloc.certificate.prices`; the mathematics is in docs/certificates.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgealloc.certificate.form import FORMAT, Cut, Kept, Reader, constraints_entry, cut_to_dict, kept_entry, seal
from edgealloc.data.constraints import Constraint
from edgealloc.units import FloatArray

__all__ = ["Branch", "OwnerCut", "Part", "SubcarrierCertificate", "SubcarrierReader"]


@dataclass(frozen=True, slots=True)
class OwnerCut:
    """Says of one sub-carrier that a device owns it, or that it does not."""

    device: int
    subcarrier: int
    owned: bool


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Why no set of sub-carriers gives a device a priced share below ``least`` at keep rates of an interval.

    Parameters
    ----------
    device, option
        Device, and row of its menu, 0 without one.
    keep
        Edges of cells, increasing; the interval is the first to the last. Shape [N], N >= 1.
    level_w, slope
        Cuts: water level omega > 0 in W, and b >= 0 in the unit of the objective per bit/s. Shapes [L].
    exclude_w
        Water levels at which the sets that no cut closes cannot carry a keep rate that would pay. Shape [J].
    """

    device: int
    option: int
    keep: FloatArray
    level_w: FloatArray
    slope: FloatArray
    exclude_w: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A node of the tree; a leaf has prices.

    Parameters
    ----------
    parent
        Number of the node above, less than its own; -1 for the root, node 0.
    cut
        What it adds to the restrictions of its parent; None for the root.
    prices
        mu_m >= 0 of each sub-carrier; None unless a leaf. Shape [M].
    kept_share
        Q0 in [0, 1] where the stability term is touched; of each cluster where it is pooled by cluster.
    least
        What each device costs at least at these prices. Shape [K].
    parts
        The proof of ``least``.
    """

    parent: int = -1
    cut: Cut | OwnerCut | None = None
    prices: FloatArray | None = None
    kept_share: Kept = 0.0
    least: FloatArray | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SubcarrierCertificate:
    """Proof that no allocation has an objective below ``lower_bound``; ``inf``: that there is none at all.

    Parameters
    ----------
    instance_name, lower_bound, nodes
        What is proved, and the tree. For a claim of infeasibility the objective is the number of devices left out.
    constraints
        Those of the solution that the proof uses, with devices by name.
    size
        Bytes of the text it was read from; 0: made in memory.
    """

    instance_name: str
    lower_bound: float
    nodes: tuple[Branch, ...]
    kind: str = "subcarriers"
    constraints: tuple[Constraint, ...] = ()
    size: int = 0

    def to_file(self) -> dict[str, Any]:
        """The JSON object, sealed with the checksum of its content."""
        data = {
            "format": FORMAT, "instance": self.instance_name, "kind": self.kind,
            "lower_bound": None if math.isinf(self.lower_bound) else self.lower_bound,
            "nodes": [_branch_dict(node) for node in self.nodes],
        } | constraints_entry(self.constraints)  # fmt: skip
        return {**data, "sha256": seal(data)}


def _branch_dict(node: Branch) -> dict[str, Any]:
    row: dict[str, Any] = {"parent": node.parent}
    if isinstance(node.cut, OwnerCut):
        row["cut"] = {"device": node.cut.device, "subcarrier": node.cut.subcarrier, "owned": node.cut.owned}
    elif node.cut is not None:
        row["cut"] = cut_to_dict(node.cut)
    if node.prices is not None and node.least is not None:
        row |= {"prices": node.prices.tolist(), "kept_share": kept_entry(node.kept_share)}
        row["least"] = node.least.tolist()
        row["parts"] = [
            {
                "device": part.device, "option": part.option, "keep": part.keep.tolist(),
                "level_w": part.level_w.tolist(), "slope": part.slope.tolist(),
                "exclude_w": part.exclude_w.tolist(),
            }
            for part in node.parts
        ]  # fmt: skip
    return row


class SubcarrierReader(Reader):
    """Reads certificates of this kind."""

    def certificate(self, data: Mapping[str, Any]) -> SubcarrierCertificate:
        """The certificate of an object whose format, kind and keys are known to be right."""
        bound = self.bound(data["lower_bound"])
        nodes = tuple(self.branch(row, f"nodes[{i}]") for i, row in enumerate(self.listed(data["nodes"], "nodes")))
        self.finish()
        return SubcarrierCertificate(str(data["instance"]), bound, nodes)

    def branch(self, value: Any, key: str) -> Branch:
        """One node."""
        row = self.part(value, key, {"parent"}, {"cut", "prices", "kept_share", "least", "parts"})
        parent = self.whole(row["parent"], f"{key}.parent", -1)
        cut = self.any_cut(row["cut"], f"{key}.cut") if "cut" in row else None
        given = [name for name in ("prices", "kept_share", "least", "parts") if name in row]
        if not given:
            return Branch(parent, cut)
        if len(given) < 4:
            self.fault(key, given, "prices, kept_share, least and parts, or none of them")
            self.finish()
        return Branch(
            parent,
            cut,
            self.floats(row["prices"], f"{key}.prices", len(self.listed(row["prices"], f"{key}.prices"))),
            self.kept(row["kept_share"], f"{key}.kept_share"),
            self.floats(row["least"], f"{key}.least", len(self.listed(row["least"], f"{key}.least"))),
            tuple(self.leaf_part(p, f"{key}.parts[{i}]") for i, p in enumerate(self.listed(row["parts"], key))),
        )

    def any_cut(self, value: Any, key: str) -> Cut | OwnerCut:
        """A cut of either kind."""
        if not isinstance(value, dict) or "subcarrier" not in value:
            return self.cut(value, key)
        row = self.part(value, key, {"device", "subcarrier", "owned"})
        if not isinstance(row["owned"], bool):
            self.fault(f"{key}.owned", row["owned"], "true or false")
        device, carrier = (self.whole(row[name], f"{key}.{name}") for name in ("device", "subcarrier"))
        return OwnerCut(device, carrier, bool(row["owned"]))

    def leaf_part(self, value: Any, key: str) -> Part:
        """One part of a leaf's proof."""
        row = self.part(value, key, {"device", "option", "keep", "level_w", "slope", "exclude_w"})
        lists = {name: self.listed(row[name], f"{key}.{name}") for name in ("keep", "level_w", "exclude_w")}
        return Part(
            self.whole(row["device"], f"{key}.device"),
            self.whole(row["option"], f"{key}.option"),
            self.floats(row["keep"], f"{key}.keep", len(lists["keep"])),
            self.floats(row["level_w"], f"{key}.level_w", len(lists["level_w"])),
            self.floats(row["slope"], f"{key}.slope", len(lists["level_w"])),
            self.floats(row["exclude_w"], f"{key}.exclude_w", len(lists["exclude_w"])),
        )
