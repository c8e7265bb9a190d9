"""One frozen A per task, drawn from a seed, so that A never travels and tasks do not meet in what they read.

After the sparse-and-orthogonal LoRA of wireless multi-task fine-tuning (arXiv 2602.20492, as far as notes of
others say; docs/related.md). The rows of all tasks' A together are orthonormal, by one QR a layer. numpy only.
"""

from __future__ import annotations

import numpy as np

from edgealloc.errors import Fault, InputError, shown
from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.wire import AdapterShape, WireArray, a_name

__all__ = ["orthogonal_a"]

_A_DRAWS = 20  # purpose of a draw, the first part of its key


def orthogonal_a(shape: AdapterShape, tasks: int, seed: int) -> tuple[dict[str, WireArray], ...]:
    """Draw the frozen A of every task: A_i A_j^T = 0 for two tasks, A_i A_i^T = I.

    Whoever knows seed and shape draws the same, so that nothing is sent.

    Parameters
    ----------
    shape
        The adapter, the same for every task.
    tasks
        T >= 1.
    seed
        Of the draw.

    Returns
    -------
    tuple of dict of str to array
        For each task, A [r, n_in] by name, in double precision: rounded to single, products are below 1e-6.

    Raises
    ------
    InputError
        For a number of tasks or a seed that is none.
    ValueError
        If there are more rows than a layer has inputs (T r > n_in), so that they cannot all be orthogonal.
    """
    given: tuple[tuple[str, object, int], ...] = (("tasks", tasks, 1), ("seed", seed, 0))
    faults = [
        Fault("options", field, shown(value), f"a whole number, at least {least}")
        for field, value, least in given
        if not (isinstance(value, int | np.integer) and value >= least)
    ]
    if faults:
        raise InputError("orthogonal A", faults)
    for u in shape.layers:
        if tasks * u.rank > u.n_in:
            raise ValueError(
                f"{u.name}: {tasks} tasks of rank {u.rank} need {tasks * u.rank} orthogonal rows, and there are "
                f"{u.n_in} inputs: lower the rank or the number of tasks"
            )
    drawn: tuple[dict[str, WireArray], ...] = tuple({} for _ in range(tasks))
    for number, u in enumerate(sorted(shape.layers, key=lambda layer: layer.name)):
        square = round_generator(seed, _A_DRAWS, number).standard_normal((u.n_in, tasks * u.rank))
        rows = np.linalg.qr(square)[0].T
        for t in range(tasks):
            drawn[t][a_name(u.name)] = rows[t * u.rank : (t + 1) * u.rank].copy()
    return drawn
