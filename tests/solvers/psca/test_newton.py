"""The Newton step of a sub-problem: of one column by devices, of many by columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.psca import device as dev
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.psca.subproblem.newton import direction, linearise
from edgealloc.solvers.psca.subproblem.workspace import (
    D_ROOM,
    D_SEND,
    DUAL,
    LEVEL,
    PRICE,
    ROOM,
    SLACK,
    STEP,
    STEP_Y,
    UNDER,
    VALUE,
    Z_HI,
    Z_LO,
    workspace,
)


def newton(columns: int, seed: int, joint: bool, pooled: bool, capped: bool) -> tuple[Any, float]:
    """Workspace and step of the common rate at a random iterate of a cell's band, beside columns of no use."""
    rng = np.random.default_rng(seed)
    devices = int(rng.integers(1, 7))
    model = Model.of(Problem(make_cell(CellOptions(devices=devices), rng).instance))
    start = model.start()
    assert start is not None
    y = start.y + 0.05 * rng.uniform(0.0, 1.0, start.y.shape)
    table = model.table(start.option, y)
    pool = model.pool()
    if not pooled:
        pool[0] = dev.OWN_GAP
    share = np.full((devices, columns), 0.5 / devices)
    share[:, 0] = rng.dirichlet(np.full(devices, rng.choice([0.02, 1.0])))
    share[:, 0] *= rng.uniform(0.3, 0.999999)
    share = np.maximum(share, 1e-9)
    lower = np.zeros((devices, columns))
    upper = np.full((devices, columns), math.inf)
    upper[:, 0] = 1.5 if capped else math.inf
    inverse = np.full((devices, columns), math.inf)
    inverse[:, :1] = model.inverse_w
    order = np.argsort(inverse, axis=1, kind="stable")
    work = workspace(devices, columns)
    common = float(y[:, dev.X].min()) - 0.1 if joint else -1e3
    for k in range(devices):
        work.one[LEVEL, k], work.one[UNDER, k] = dev.constraints(
            table[k], inverse[k], order[k], y[k], share[k], common, work.con[VALUE, k]
        )
    work.con[SLACK] = np.abs(work.con[VALUE]) + 10.0 ** rng.uniform(-8.0, 0.0, work.con[VALUE].shape)
    work.con[DUAL] = 10.0 ** rng.uniform(-6.0, 1.0, work.con[VALUE].shape)
    work.box[Z_LO] = (mu := 10.0 ** rng.uniform(-9.0, -2.0)) / (share - lower)
    work.box[Z_HI, :, 0] = mu if capped else 0.0
    work.col[ROOM] = 1.0 - share.sum(axis=0)
    work.col[PRICE] = mu / work.col[ROOM]
    linear = np.zeros((devices, columns))
    seven = work.con, work.box, work.col, work.one, work.way, work.grad, work.hess
    _r, f1, f2, g2 = linearise(
        table, pool, inverse, linear, 1.0, joint, mu, common, y, share, lower, upper, *seven
    )  # fmt: skip
    scratch = work.turned, work.moved, work.system, work.block, work.solved
    return work, direction(table, joint, mu, f1, f2, g2, *seven, *scratch)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 60), marks=pytest.mark.slow)], ids=str)
def test_a_column_of_no_use_changes_nothing(joint: bool, pooled: bool, seeds: range) -> None:
    """With one column devices are eliminated first, with two columns: the same step but for rounding."""
    for seed in seeds:
        one, common = newton(1, seed, joint, pooled, seed % 2 == 0)
        two, expected = newton(2, seed, joint, pooled, seed % 2 == 0)
        for name, a, b in (
            ("common rate", np.array(common), np.array(expected)),
            ("devices", one.way[STEP_Y], two.way[STEP_Y]),
            ("multipliers", one.one[D_SEND], two.one[D_SEND]),
            ("shares", one.box[STEP, :, 0], two.box[STEP, :, 0]),
            ("room", one.col[D_ROOM, 0], two.col[D_ROOM, 0]),
        ):
            size = float(np.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7 * size + 1e-300, err_msg=f"{seed} {name}")
