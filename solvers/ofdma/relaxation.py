r"""OFDMA as branch and bound sees it: column generation over (device, set of sub-carriers) with exact pricing.

Any prices mu >= 0 of sub-carriers and nu of sum_k w_k s_k^2, of each cluster where there are some, give the bound
(weak duality)

.. math:: \min_Q [\mathrm{gap}(Q) - \nu Q]
          + \sum_k \min_S [\mathrm{share}_\nu(\mathrm{cap}_k(S)) + \mu(S)] - \sum_m \mu_m,

whatever the master and its duals were: it holds at every moment, and when stopped early.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgealloc.data.outcome import Snapshot
from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma.box import OfdmaBox, root_box, split
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.common_rate import is_rate_ripe, split_rate
from edgealloc.solvers.ofdma.master import Master
from edgealloc.solvers.ofdma.node import NO_SET, OfdmaNode, Prices, add_plan
from edgealloc.solvers.ofdma.record import OfdmaProof, take_up
from edgealloc.solvers.ofdma.start import price_guess
from edgealloc.solvers.search.engine import Found, Relaxation, Relaxed

__all__ = ["Ofdma"]


@dataclass(slots=True, eq=False)
class Ofdma(Relaxation[OfdmaBox, Assignment]):
    """Sub-carrier assignment with levels, menus and selection; the columns are shared by all nodes.

    Parameters
    ----------
    cell
        The problem as arrays.
    rel_gap
        The gap that is asked for; pricing is no finer than that needs.
    first
        An assignment to read the first prices from; need not be feasible for all devices.
    watch
        Given a snapshot per round at the root.
    left
        What the search of a like problem left, to begin with; None for nothing.
    """

    cell: OfdmaCell
    rel_gap: float
    first: Assignment
    watch: Callable[[Snapshot], None] | None = None
    left: OfdmaProof | None = None
    master: Master = field(init=False)
    rounds: int = 0
    searched: int = 0

    def __post_init__(self) -> None:
        cell = self.cell
        self.master = Master(cell.devices, cell.subcarriers, cell.pools, NO_SET * cell.dear, cell.size)
        # one tangent of each term bounds the master
        weights, everyone = cell.problem.instance.weights, np.arange(cell.devices)
        self.master.add_tangents(cell.pools.kept(everyone, weights, np.square(self.first.keep)))

    def root(self) -> OfdmaBox:
        """Every assignment."""
        return root_box(self.cell)

    def relax(
        self, box: OfdmaBox, guess: Prices | None, best: Found[Assignment] | None, cutoff: float, control: Control
    ) -> Relaxed[OfdmaBox, Assignment]:
        """Generate columns until the box is closed, solved or time is up."""
        told: tuple[Callable[[Snapshot], None], ...] = ()
        if box == self.root() and not self.cell.counting:  # there the bound of the node is that of the search
            told = (control.report,) if self.watch is None else (control.report, self.watch)
        node = OfdmaNode(self.cell, self.master, self.rel_gap, box, best, cutoff, control, told)
        prices = guess or self._first_prices()
        children: tuple[OfdmaBox, ...] = ()
        what = ""
        point = node.generate(prices, near=guess is None and self.left is not None)
        if point is not None and self.cell.common and node.bound < node.cutoff:
            if is_rate_ripe(self.cell, box, self.master, point.x, node.cutoff - node.bound):
                point = node.generate(node.prices, whole=True)
            else:
                children, what = split_rate(self.cell, box, node.cutoff)
        if point is not None and node.bound < node.cutoff and not children:
            children, what = split(self.cell, box, self.master, point.x, node.wide)
            if self.cell.common and not children:
                children, what = split_rate(self.cell, box, node.cutoff)
        self.rounds += node.rounds
        self.searched += node.searched
        bound = math.inf if self.cell.counting and node.bound > 1e-7 else node.bound
        return Relaxed(bound, tuple(node.found), children, node.prices, what)

    def _first_prices(self) -> Prices:
        """Prices from a like search, or from the first assignment; the master gets their columns.

        It also gets those of the devices left out.
        """
        cell, plan = self.cell, self.first
        if cell.counting:
            first = np.where(np.isfinite(cell.inv_a[:, 0]), cell.inv_a[:, 0], 1.0)
            mu = np.full(cell.subcarriers, 0.5 * cell.devices / cell.subcarriers)
            prices = Prices(mu, np.zeros(1), 4.0 * first[cell.device])
        else:
            nu = cell.prices(plan.keep)
            mu, levels = price_guess(cell, plan, nu)
            prices = Prices(mu, nu, levels)
        for k in range(cell.devices):
            if np.isfinite(cell.out[k]):
                self.master.add(k, -1, np.zeros(cell.subcarriers, bool), float(cell.out[k]), 0.0, 0.0)
        add_plan(cell, self.master, plan)
        known = None if self.left is None else take_up(cell, self.master, self.left)
        return known or prices
