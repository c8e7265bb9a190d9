"""The copy of the package for all files of this folder."""

from __future__ import annotations

from tests.solvers.compiling.toys import package

__all__ = ["package"]
