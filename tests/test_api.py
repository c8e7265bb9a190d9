"""The public names of every face: all there, none shadowed by a module, cheap to import; honest methods."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import edgealloc
from edgealloc.errors import EdgeallocError, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from tests.conftest import MakeInstance

FACES = ("edgealloc", *(f"edgealloc.{room}" for room in ("flower", "models", "rounds", "scenario", "verify")))


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_is_there(face: str) -> None:
    package = importlib.import_module(face)
    for name in package.__all__:
        try:
            assert getattr(package, name) is not None
        except ImportError as error:  # of an extra that is not installed
            pytest.skip(str(error))
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'solvve'"):
        package.solvve  # noqa: B018


@pytest.mark.parametrize("face", FACES)
def test_no_public_name_is_a_module(face: str) -> None:
    """Importing a submodule binds its name in the package, which would replace the function of that name."""
    package = importlib.import_module(face)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(package.__all__)


@pytest.mark.parametrize("face", FACES)
def test_import_is_light(face: str) -> None:
    heavy = [
        "torch",
        "pandas",
        "cvxpy",
        "pyomo",
        "pydantic",
        "numba",
        "scipy",
        "matplotlib",
        "rich",
        "click",
        "flwr",
    ]
    code = f"import sys, {face}; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_methods_can_be_imported_and_are_honest(make_instance: MakeInstance) -> None:
    """Every entry exists; a method that does not take a problem refuses it with a reason."""
    problem = Problem(make_instance("fdma", 3))
    sub_carriers = Problem(make_instance("ofdma", 3))
    assert METHODS["convex"].takes(problem)
    assert not METHODS["convex"].takes(sub_carriers)
    with pytest.raises(EdgeallocError, match="sub-carriers are discrete"):
        edgealloc.solve(sub_carriers, "convex")
    for method in METHODS.values():
        module, function = method.entry.split(":")
        assert callable(getattr(importlib.import_module(module), function)), method.name
        assert method.summary
        assert method.needs


def test_an_unknown_method_lists_the_known_ones(make_instance: MakeInstance) -> None:
    with pytest.raises(InputError, match="allowed: auto, convex"):
        edgealloc.solve(make_instance("fdma", 2), "simplex")
