"""Solution methods of edgealloc.

Each takes a :class:`~edgealloc.formulation.problem.Problem`, and none knows another's file.
"""

if __name__ != "edgealloc.solvers":
    raise ImportError(
        f"this package is edgealloc.solvers, but it was imported as {__name__!r}; install edgealloc "
        "(pip install -e .) and import edgealloc.solvers, so that it never hides a `solvers` package of yours"
    )
