"""The copies of the package for all files of this folder."""

from __future__ import annotations

from tests.solvers.compiling.toys import called_once, compiled, package

__all__ = ["called_once", "compiled", "package"]
