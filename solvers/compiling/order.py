"""Sorting inside kernels: a plain merge sort, for NumPy's takes seconds to compile there."""

from __future__ import annotations

from edgealloc.solvers.compiling.kernel import kernel

__all__ = ["sort_by"]


@kernel(inner=True)
def sort_by(key, index, spare):  # type: ignore[no-untyped-def]
    """Sort ``index`` [N] in place so that ``key[index]`` rises, equals as they stand; ``spare`` [N]: scratch."""
    n = index.size
    width = 1
    while width < n:
        for left in range(0, n, 2 * width):
            middle, right = min(left + width, n), min(left + 2 * width, n)
            i, j = left, middle
            for t in range(left, right):
                if i < middle and (j >= right or key[index[i]] <= key[index[j]]):
                    spare[t] = index[i]
                    i += 1
                else:
                    spare[t] = index[j]
                    j += 1
        for t in range(n):
            index[t] = spare[t]
        width *= 2
