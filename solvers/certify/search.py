"""Certificates of searches over separable problems: FDMA and resource blocks with every variant.

The tree comes from the record of the search. Pieces start from the search's own, those that it dropped, and
those beyond what the whole spectrum carries. The checker then evaluates all leaves; pieces that cost a leaf its
proof are halved until all are proved. That ends: halving a piece brings its line to the true bandwidth, and the
search's bound is at most the true dual value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgealloc.certificate.form import Kept
from edgealloc.certificate.prices import OUT, Certificate, Cut, Node, Pieces, Planes, Round
from edgealloc.data.instance import Instance
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control
from edgealloc.solvers.certify.late import in_time
from edgealloc.solvers.certify.planes import planes_at
from edgealloc.solvers.certify.rows import certified_rows
from edgealloc.solvers.separable.box import DeviceBox
from edgealloc.solvers.separable.choices import Choices
from edgealloc.solvers.separable.record import SeparableProof
from edgealloc.solvers.separable.relaxation import Separable
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.cover import check_tree, levels_of, root_box
from edgealloc.verify.proof.enclosures import Intervals, sum_below
from edgealloc.verify.proof.model import Model, budget_hz

__all__ = ["search_certificate"]

_ROUNDS = 40  # of halving
_MOST = 20  # times as many pieces as the search had, and a hundred per device, are enough
_BACK = (0.0, 1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
_FAR_BACK = (1e-3, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999, 0.9999)  # where no rate at all is carried
_PRICES = 30  # of other leaves that are tried
_SLIVERS = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)  # relative distances from a left end where a piece is cut


@dataclass(slots=True, eq=False)
class _Draft:
    """Pieces as columns while they are refined; ``round`` is the number of the round that drops a piece, or -1."""

    choices: Choices
    mode: IntArray
    device: IntArray
    left: FloatArray
    right: FloatArray
    round: IntArray
    touch: FloatArray

    def option(self) -> IntArray:
        """Menu row of each piece, 0 without a menu, -1 when left out."""
        row = np.maximum(self.choices.option[np.maximum(self.mode, 0)], 0)
        return np.where(self.mode == OUT, OUT, row)

    def pieces(self) -> Pieces:
        """With planes in the middle, at the left end where the middle is blocked."""
        inside = self.mode != OUT
        rows = self.choices.rows[np.maximum(self.mode, 0)]
        line = planes_at(rows, np.where(inside, self.touch, 0.5))
        blocked = line.efficiency == 0.0
        if blocked.any():
            line = _merged(line, planes_at(rows, np.where(inside, self.left, 0.5)), blocked)
        start = planes_at(rows, np.where(inside, self.left, 0.5)) if self.choices.block_hz else None
        return Pieces(self.device, self.option(), self.left, self.right, line, start)

    def halved(self, which: BoolArray) -> None:
        """Cut pieces in the middle (in logarithms), or at a point of a measured curve."""
        which = which & (self.mode != OUT) & (self.right - self.left > 1e-14 * self.right)
        middle = self.choices.splits(self.mode, self.left, self.right)
        which &= (middle > self.left) & (middle < self.right)
        more = np.flatnonzero(which)
        for name in ("mode", "device", "round"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate((column, column[more])))
        self.left = np.concatenate((self.left, middle[more]))
        right = np.where(which, middle, self.right)
        self.right = np.concatenate((right, self.right[more]))
        fresh = np.sqrt(self.left * self.right)
        changed = np.concatenate((which, np.ones(len(more), dtype=bool)))
        self.touch = np.where(changed, fresh, np.concatenate((self.touch, self.touch[more])))


def _merged(first: Planes, second: Planes, use_second: BoolArray) -> Planes:
    names = ("touch", "efficiency", "mix", "limit", "multiplier")
    return Planes(*(np.where(use_second, getattr(second, n), getattr(first, n)) for n in names))


def search_certificate(result: Result, control: Control) -> Certificate:
    """The certificate of a search that kept a record.

    Parameters
    ----------
    result
        Of method ``bnb`` for FDMA or resource blocks, with its proof.
    control
        Its clock ends the writing.

    Returns
    -------
    Certificate
        It proves about the result's bound, or less if it must.
    """
    inst, claim, proof = result.problem.instance, result.lower_bound, result.proof
    assert isinstance(proof, SeparableProof)
    draft, rounds = _first_draft(proof)
    dropped = [Round(mu, q, np.zeros(0, np.intp), caps) for mu, q, caps in rounds]
    used = certified_rows(result.problem)
    first = Certificate(inst.name, "prices", claim, draft.pieces(), tuple(_tree(proof, control)), constraints=used)
    best, proved = _refined(inst, first, draft, dropped, control)
    if not proved:  # the search left boxes without pieces, or with others: their prices were guesses
        best, _ = _refined(inst, _repriced(inst, best), draft, dropped, control)
    return best


def _refined(
    inst: Instance, certificate: Certificate, draft: _Draft, rounds: list[Round], control: Control
) -> tuple[Certificate, bool]:
    """The certificate with pieces halved until they prove its leaves and rounds; whether they do."""
    most = _MOST * len(draft.mode) + 100 * inst.num_devices
    for _ in range(_ROUNDS):
        in_time(control)
        dropped = tuple(replace(entry, pieces=np.flatnonzero(draft.round == i)) for i, entry in enumerate(rounds))
        certificate = replace(certificate, pieces=draft.pieces(), rounds=dropped)
        with np.errstate(all="ignore"):
            weak = _weak(inst, certificate)
            drops = _droppable(inst, certificate, weak & (draft.round < 0))
        if not weak.any():
            return certificate, True
        if np.any(drops >= 0):
            draft.round = np.where(drops >= 0, drops, draft.round)
            continue
        before = len(draft.mode)
        draft.halved(weak)
        if len(draft.mode) == before or before > most:
            break
    return certificate, False


def _repriced(inst: Instance, certificate: Certificate) -> Certificate:
    """The certificate with the best of some prices in leaves that are not proved: those of others, and higher."""
    model, gone = Model.of(inst, certificate, Intervals), np.zeros(len(certificate.pieces), dtype=bool)
    for entry in certificate.rounds:
        gone[entry.pieces] = True
    nodes = list(certificate.nodes)
    known = {node.price_per_hz for node in nodes if node.price_per_hz}
    known.update(entry.price_per_hz for entry in certificate.rounds)
    top = max(known, default=0.0) or certificate.lower_bound / budget_hz(inst)
    prices = sorted({*sorted(known)[:: 1 + len(known) // _PRICES], *(top * 4.0**i for i in range(1, 8))})
    for i, box in check_tree(inst, certificate, lambda *_: None).items():
        node = nodes[i]
        if node.priced is None:
            continue
        (own, *caps), q = node.priced
        with np.errstate(all="ignore"):
            least = model.values([((own, *caps), q, box)], gone)
            if least[0] >= certificate.lower_bound:
                continue
            values = least + model.values([((mu, *caps), q, box) for mu in prices], gone)
        nodes[i] = replace(node, price_per_hz=[own, *prices][int(np.argmax(values))])
    return replace(certificate, nodes=tuple(nodes))


def _first_draft(proof: SeparableProof) -> tuple[_Draft, list[tuple[float, Kept, tuple[float, ...]]]]:
    """The search's pieces, those that it dropped, and those beyond the reach of the whole spectrum."""
    choices, kept, dropped = proof.relaxation.choices, proof.relaxation.pieces, proof.relaxation.dropped
    parts = [(kept, -1), *((entry.pieces, i) for i, entry in enumerate(dropped))]
    columns = [
        (
            p.mode,
            p.device,
            p.left,
            p.right,
            np.full(len(p), i),
            np.where(p.mode == OUT, 1.0, np.sqrt(p.left * p.right)),
        )
        for p, i in parts
    ]
    columns += [_points(proof), _beyond(choices)]
    mode, device, left, right, number, touch = (np.concatenate(c) for c in zip(*columns, strict=True))
    touch = np.where(mode == OUT, 1.0, touch)
    draft = _Draft(
        choices, mode.astype(np.intp), device.astype(np.intp), left, right, number.astype(np.intp), touch
    )
    return draft, [_split(proof.relaxation, entry.prices) for entry in dropped]


def _split(relaxation: Separable, prices: tuple[Any, Any]) -> tuple[float, Kept, tuple[float, ...]]:
    """Price of a Hz of the band, Q0, that of each cluster where there are some, and prices of the caps."""
    rows, q = prices
    kept: Kept = q
    if relaxation.choices.problem.pools is not None:
        kept = tuple(np.broadcast_to(q, relaxation.pools.weight.shape).tolist())
    caps = tuple(rows[1:]) if isinstance(rows, tuple) else ()
    return (rows[0] if isinstance(rows, tuple) else rows), kept, caps


def _points(proof: SeparableProof) -> tuple[Any, ...]:
    """Single rates that boxes of a common keep rate consist of, for every continuous mode that can have them."""
    choices = proof.relaxation.choices
    rates = sorted({box.low for box in proof.record.visits if box.low == box.high})
    levels = choices.problem.instance.keep_levels
    free = np.array([levels is None or levels[k] is None for k in choices.device], dtype=bool)
    pairs = [(r, s) for s in rates for r in np.flatnonzero(free & (choices.low <= s) & (s <= choices.high))]
    mode = np.array([r for r, _ in pairs], dtype=np.intp)
    rate = np.array([s for _, s in pairs])
    return mode, choices.device[mode], rate, rate, np.full(len(mode), -1), rate


def _beyond(choices: Choices) -> tuple[Any, ...]:
    """Keep rates that not even the whole spectrum carries, with planes that prove it."""
    inst = choices.problem.instance
    low, top = inst.keep_min[choices.device], inst.keep_max[choices.device]
    left = np.where(choices.low > choices.high, low, choices.high)
    open_ = (left < top) | (choices.low > choices.high)
    steps = levels_of(inst)
    for r, k in enumerate(choices.device.tolist()):  # between levels nothing has to be proved, nor above the last
        levels = steps[k]
        if levels is not None:
            above = levels[(levels >= left[r]) & (levels > choices.high[r]) & (levels <= top[r])]
            left[r] = float(above.min()) if len(above) else top[r]
            open_[r] = len(above) > 0 or choices.low[r] > choices.high[r]
    mode = np.flatnonzero(open_)
    left, right = left[mode], top[mode]
    touch, missing = _touched(choices, mode, left, right)
    if missing.any():  # the bandwidth at the left end is all there is, or nearly: what is left open is made narrow
        ends = np.minimum(left[missing, None] * (1.0 + np.array(_SLIVERS)), right[missing, None])
        ends = np.hstack([ends, right[missing, None]])
        some, which = np.nonzero(ends[:, :-1] < ends[:, 1:])
        cut = mode[missing][some], ends[some, which], ends[some, which + 1]
        mode, left, right, touch = (
            np.concatenate((whole[~missing], more))
            for whole, more in zip((mode, left, right, touch), (*cut, _touched(choices, *cut)[0]), strict=True)
        )
    return mode, choices.device[mode], left, right, np.full(len(mode), -1), touch


def _touched(
    choices: Choices, mode: IntArray, left: FloatArray, right: FloatArray
) -> tuple[FloatArray, BoolArray]:
    """Where planes touch that prove pieces impossible from their left ends on, and for which none does. [N]."""
    touch, missing = left.copy(), np.ones(len(mode), dtype=bool)
    inst = choices.problem.instance
    for back in _BACK + _FAR_BACK:
        if not missing.any():
            break
        trial = np.where(missing, left * (1.0 - back), touch)
        draft = _Draft(choices, mode, choices.device[mode], left, right, np.full(len(mode), -1), trial)
        with np.errstate(all="ignore"):
            trial_of = Certificate(inst.name, "prices", 0.0, draft.pieces(), constraints=choices.caps.rows)
            model = Model.of(inst, trial_of, Intervals)
        done = model.impossible & missing
        touch, missing = np.where(done, trial, touch), missing & ~done
    return touch, missing


def _tree(proof: SeparableProof, control: Control) -> list[Node]:
    """The boxes of the search as nodes, root first; leaves get prices, or none where bandwidths do not fit."""
    choices, visits = proof.relaxation.choices, proof.record.visits
    start = (0.2 * choices.problem.free_objective / choices.problem.instance.bandwidth_hz, 0.1)
    if proof.relaxation.dropped:  # they may have dropped all pieces but those that only the proof has
        start = proof.relaxation.dropped[-1].prices
    nodes = [Node()]
    stack: list[tuple[int, DeviceBox, Any]] = [(0, proof.relaxation.root(), start)]
    while stack:
        in_time(control)
        number, box, guess = stack.pop()
        children, own = proof.record.visited(box)
        if any(child in visits for child in children):
            for child, cut in zip(children, _cuts(choices, box, children), strict=True):
                nodes.append(Node(number, cut))
                stack.append((len(nodes) - 1, child, own or guess))
            continue
        prices = _prices(proof.relaxation, box, own or guess)
        if prices is not None:
            mu, q, caps = _split(proof.relaxation, prices)
            nodes[number] = replace(nodes[number], price_per_hz=mu, kept_share=q, cap_prices=caps)
    return nodes


def _cuts(choices: Choices, box: DeviceBox, children: tuple[DeviceBox, ...]) -> list[Cut]:
    """What each child adds to its parent. Options that the search had no pieces for go to the last child."""
    if len(children[0].cuts) == len(box.cuts):
        return [Cut(None, None, child.low, child.high) for child in children]
    cuts = []
    for child in children:
        new = child.cuts[-1]
        rows = None if new.modes is None else tuple(_option(choices, m) for m in new.modes)
        cuts.append(Cut(new.device, rows, new.low, new.high))
    if cuts[-1].options is not None:
        k = cuts[-1].device
        every = {_option(choices, int(m)) for m in np.flatnonzero(choices.device == k)} | {OUT}
        rest = every - {row for cut in cuts for row in cut.options or ()}
        cuts[-1] = replace(cuts[-1], options=(*cuts[-1].options, *sorted(rest)))
    return cuts


def _option(choices: Choices, mode: int) -> int:
    """Menu row of a mode as certificates have it."""
    return OUT if mode == OUT else max(int(choices.option[mode]), 0)


def _prices(relaxation: Separable, box: DeviceBox, guess: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """Best prices of a leaf on the search's pieces, any where a device has none left; None where nothing fits."""
    choices, active = relaxation.choices, relaxation.active(box)
    start = np.searchsorted(active.device, np.arange(choices.problem.instance.num_devices + 1)) * 2
    if np.any(np.diff(start) == 0):
        return guess
    columns = (active.cost.ravel(), active.band.ravel(), active.kept.ravel())
    scale = 1e-3 * relaxation.rel_gap * abs(choices.problem.free_objective) + 1e-300
    priced = relaxation.search(start, active, columns, guess, scale)
    return None if math.isinf(priced.bound) else priced.prices


def _weak(inst: Instance, certificate: Certificate) -> BoolArray:
    """Pieces that keep a leaf or a round from its proof: the least of their devices. Shape [N]."""
    claim, model = certificate.lower_bound, Model.of(inst, certificate, Intervals)
    gone = np.zeros(len(certificate.pieces), dtype=bool)
    weak = np.zeros(len(certificate.pieces), dtype=bool)
    for entry in certificate.rounds:
        args = ((*entry.priced, root_box(inst)), gone)
        if model.forced(*entry.priced, entry.pieces, gone) < claim:
            least, constant, floors = model.dual(*args)
            whole = sum_below(np.append(least, constant))
            forced = whole - least[model.device] + floors
            weak[entry.pieces] |= forced[entry.pieces] < claim
            weak |= _attained(model, floors, least) & ~gone
        gone = gone.copy()
        gone[entry.pieces] = True
    leaves = []
    for i, box in check_tree(inst, certificate, lambda *_: None).items():
        node = certificate.nodes[i]
        if node.priced is not None:
            leaves.append((*node.priced, box))
        elif not model.crowded(box, gone):
            weak |= box.clip(model.spans, ~gone)[2] & ~model.impossible
    for leaf, value in zip(leaves, model.values(leaves, gone), strict=True):
        if value < claim:
            least, _constant, floors = model.dual(leaf, gone)
            weak |= _attained(model, floors, least)
    return weak


def _droppable(inst: Instance, certificate: Certificate, which: BoolArray) -> IntArray:
    """The first round whose prices rule out a piece of ``which`` [N], -1 for none and for other pieces. Shape [N].

    The search has no piece between what its own margins say the whole spectrum carries and what surely exceeds it.
    """
    drops = np.full(len(which), -1, dtype=np.intp)
    if not (which.any() and certificate.rounds):
        return drops
    model, gone = Model.of(inst, certificate, Intervals), np.zeros(len(which), dtype=bool)
    for i, entry in enumerate(certificate.rounds):
        least, constant, floors = model.dual((*entry.priced, root_box(inst)), gone)
        forced = sum_below(np.append(least, constant)) - least[model.device] + floors
        drops[which & (drops < 0) & (forced > certificate.lower_bound)] = i
        gone = gone.copy()
        gone[entry.pieces] = True
    return drops


def _attained(model: Model, floors: FloatArray, least: FloatArray) -> BoolArray:
    return np.asarray(np.isfinite(floors) & (floors <= least[model.device]))
