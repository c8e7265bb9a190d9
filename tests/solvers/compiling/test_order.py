"""Kernels that only kernels call, and what is written out in them because NumPy's takes seconds to compile."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.compiling.order import sort_by
from edgealloc.solvers.psca.subproblem.coupling import eliminate


@kernel
def _sorted(key, index, spare):  # type: ignore[no-untyped-def]
    sort_by(key, index, spare)


@pytest.mark.parametrize("sort", [_sorted, sort_by], ids=["compiled", "plain"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, 100])
def test_sort_is_stable(size: int, sort) -> None:  # type: ignore[no-untyped-def]
    """Few different keys, so that equals have to keep their order; called from a kernel and from Python."""
    rng = np.random.default_rng(size)
    key, some = rng.integers(0, 5, 2 * size).astype(float), rng.permutation(2 * size)[:size]
    index = some.copy()
    sort(key, index, np.empty(size, np.int64))
    assert np.array_equal(index, some[np.argsort(key[some], kind="stable")])


@kernel
def _solved(system):  # type: ignore[no-untyped-def]
    return eliminate(system)


@pytest.mark.parametrize("size", [1, 2, 5, 33])
def test_elimination(size: int) -> None:
    """Against LAPACK, with a first pivot of zero, which only rows in another order get round."""
    rng = np.random.default_rng(size)
    matrix, right = rng.normal(size=(size, size)), rng.normal(size=(size, 4))
    if size > 1:
        matrix[0, 0] = 0.0
    system = np.hstack((matrix, right))
    assert _solved(system)
    assert np.allclose(system[:, size:], np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_elimination_says_that_a_matrix_is_singular(bad: float) -> None:
    """No answer rather than a wrong one: a column of zeros, or numbers that are none."""
    system = np.hstack((np.eye(3), np.ones((3, 1))))
    system[1, 1] = bad
    assert not _solved(system)
