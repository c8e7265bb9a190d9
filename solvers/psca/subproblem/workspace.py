"""What a sub-problem of P-SCA keeps from step to step.

All lies in a few arrays: a compiled function costs as much to compile as it has arrays to pass, and numbers in one
array cost the same as in ten.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgealloc.solvers.psca.device import NUM_H, NUM_Y
from edgealloc.units import FloatArray

__all__ = ["Workspace", "workspace"]

# Rows of ``con`` [5, K, 11]: values h of the constraints, their slacks and duals, and the steps of both.
VALUE, SLACK, DUAL, D_SLACK, D_DUAL = range(5)
# Rows of ``box`` [9, K, M]: duals of the bounds of the shares and their steps; dR/dc and fill q_m of the columns;
# the diagonal of the Newton matrix and the right-hand side in c; the step of the shares.
Z_LO, Z_HI, DZ_LO, DZ_HI, PROFIT, FILL, DIAG, RIGHT, STEP = range(9)
# Rows of ``col`` [6, M]: slack and dual of the column sums and their steps; two numbers of the Newton matrix.
ROOM, PRICE, D_ROOM, D_PRICE, FREE, WHOLE = range(6)
# Rows of ``one`` [11, K]: water level, share under water, how x enters what couples, step of H_SEND's dual; slack
# over dual of H_SEND and what it misses, one over the bend of the rate; what the payload draws from ``solved``.
LEVEL, UNDER, SIDE, D_SEND, SOFT, MISS, STRAIGHT, FLOW = range(8)
# Rows of ``way`` [3, K, 5]: right-hand side in y, the step, and the scale of the Newton matrix.
RIGHT_Y, STEP_Y, ROOT = range(3)
# Rows of ``turned`` [4, M, K]: what a column's closed form takes and gives; what the last number asks of it.
LOOSE, ASKED, ANSWER, PULL = range(4)
LINKS = 3  # what links a device to the others: its payload's multiplier, its rate's bend, the pooled gap


class Workspace(NamedTuple):
    """Arrays of a sub-problem with K devices and M columns; rows as named above.

    Parameters
    ----------
    con
        Constraints: VALUE, SLACK, ... Shape [5, K, 11].
    box
        Shares: Z_LO, Z_HI, ... Shape [9, K, M].
    col
        Column sums: ROOM, PRICE, ... Shape [6, M].
    one
        Devices: LEVEL, UNDER, ... Shape [11, K].
    way
        Right-hand side, step and scale in y. Shape [3, K, 5].
    grad, hess
        Gradients of the constraints and Hessian of the Lagrangian, in y. Shapes [K, 11, 5], [K, 5, 5].
    turned
        Columns in closed form: LOOSE, ASKED, ... Shape [4, M, K].
    moved
        Scratch, then the steps of what couples: two numbers a device, and the last. Shape [2 K + 1].
    system, block
        Matrices of all devices (not needed for one column) and of one, each followed by its right-hand sides.
        Shapes [2 K + 1, 2 K + 2] or [1, 2], and [5, 9].
    solved
        Answers of ``block``. Shape [K, 5, 4].
    """

    con: FloatArray
    box: FloatArray
    col: FloatArray
    one: FloatArray
    way: FloatArray
    grad: FloatArray
    hess: FloatArray
    turned: FloatArray
    moved: FloatArray
    system: FloatArray
    block: FloatArray
    solved: FloatArray


def workspace(devices: int, columns: int) -> Workspace:
    """Fresh arrays, zero but for the slacks, which are 1."""
    con = np.zeros((5, devices, NUM_H))
    con[SLACK] = 1.0
    return Workspace(
        con,
        np.zeros((9, devices, columns)),
        np.zeros((6, columns)),
        np.zeros((FLOW + LINKS + 1, devices)),
        np.zeros((3, devices, NUM_Y)),
        np.zeros((devices, NUM_H, NUM_Y)),
        np.zeros((devices, NUM_Y, NUM_Y)),
        np.zeros((4, columns, devices)),
        np.zeros(2 * devices + 1),
        np.zeros((2 * devices + 1, 2 * devices + 2) if columns > 1 else (1, 2)),
        np.zeros((NUM_Y, NUM_Y + LINKS + 1)),
        np.zeros((devices, NUM_Y, LINKS + 1)),
    )
