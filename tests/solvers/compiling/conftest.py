"""The copies of the package for all files of this folder."""

from __future__ import annotations

from tests.solvers.compiling.toys import _called_once, compiled, package

__all__ = ["_called_once", "compiled", "package"]
