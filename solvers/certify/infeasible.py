"""Certificates of infeasible FDMA and resource-block instances: bandwidths that add up to more than there is.

One piece per device and row of its menu, from its least keep rate on. Bandwidth only grows with the keep rate, so
what the plane of a piece proves at its start holds everywhere. Where no bandwidth serves the least keep rate, the
plane touches at a lower one and is followed up to it.
"""

from __future__ import annotations

import numpy as np

from edgealloc.certificate.prices import Certificate, Node, Pieces, Planes
from edgealloc.data.instance import Instance
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.certify.planes import planes_at
from edgealloc.solvers.certify.rows import certified_rows
from edgealloc.solvers.fdma.diagnose import no_level_in_common
from edgealloc.solvers.separable.choices import Choices
from edgealloc.units import FloatArray, IntArray
from edgealloc.verify.proof.cover import levels_of, options_of, root_box
from edgealloc.verify.proof.enclosures import Intervals
from edgealloc.verify.proof.model import Model, budget_hz, least_of

__all__ = ["infeasible_certificate"]

_NEARER = (1.0, *(1.0 - 10.0 ** (-0.5 * i) for i in range(26, 0, -1)), 0.5, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)


def infeasible_certificate(problem: Problem) -> Certificate:
    """The certificate that no allocation exists; it holds only where the single devices and the sum say so.

    Parameters
    ----------
    problem
        An infeasible problem with FDMA or resource blocks.

    Returns
    -------
    Certificate
        One piece per device and menu row, unchecked.
    """
    instance, choices = problem.instance, Choices.of(problem)
    if no_level_in_common(instance):
        return _of_nothing(instance, choices)
    left = _least(instance)[choices.device]
    option = np.asarray(np.maximum(choices.option, 0), dtype=np.intp)
    assert all(row in options_of(instance, int(k)) for k, row in zip(choices.device, option, strict=True))
    best, least = _planes(choices, left), np.full(len(left), -np.inf)
    for nearer in _NEARER:
        planes = _planes(choices, left * nearer)
        needs = _needs(instance, _certificate(choices, choices.device, option, left, planes))
        better = needs > least
        least = np.where(better, needs, least)
        best = Planes(*(np.where(better, getattr(planes, n), getattr(best, n)) for n in Planes.__slots__))
        each = least_of(choices.device, least, instance.num_devices)
        if np.any(np.isposinf(each)) or each.sum() > (1.0 + 1e-9) * budget_hz(instance):
            break  # that is a proof
        if choices.caps and choices.caps.lacking(problem, each, np.isfinite(each)):
            break
    return _certificate(choices, choices.device, option, left, best)


def _of_nothing(instance: Instance, choices: Choices) -> Certificate:
    """No device needs a piece where no level is allowed: the others than the first have none."""
    first = choices.device == 0
    option = np.asarray(np.maximum(choices.option, 0), dtype=np.intp)[first]
    left, planes = instance.keep_min[choices.device[first]], _planes(choices, instance.keep_min[choices.device])
    planes = Planes(*(getattr(planes, name)[first] for name in Planes.__slots__))
    return _certificate(choices, choices.device[first], option, left, planes)


def _least(instance: Instance) -> FloatArray:
    """Least keep rate of each device: its least level, or with one rate for all, the least that all may take."""
    bottom, least = root_box(instance).low, np.maximum(instance.keep_min, root_box(instance).low)
    for k, levels in enumerate(levels_of(instance)):
        if levels is not None and np.any(levels >= bottom):
            least[k] = levels[levels >= bottom].min()
    return np.asarray(least)


def _planes(choices: Choices, keep: FloatArray) -> Planes:
    """Planes that touch at keep rates [R], without warnings where a mode is impossible there."""
    with np.errstate(all="ignore"):
        return planes_at(choices.rows, keep)


def _certificate(
    choices: Choices, device: IntArray, option: IntArray, left: FloatArray, planes: Planes
) -> Certificate:
    """One node with a piece per mode, of ``device`` and ``option`` [R], from ``left`` [R] on, under planes [R]."""
    instance = choices.problem.instance
    pieces = Pieces(
        device=device,
        option=option,
        left=left,
        right=np.maximum(instance.keep_max[device], left),
        line=planes,
        start=planes if instance.access == "rb" else None,
    )
    used = certified_rows(choices.problem)
    return Certificate(instance.name, "prices", np.inf, pieces, (Node(),), constraints=used)


def _needs(instance: Instance, certificate: Certificate) -> FloatArray:
    """Bandwidth that each piece surely needs; ``inf`` where it is impossible."""
    with np.errstate(all="ignore"):
        model = Model.of(instance, certificate, Intervals)
    return np.where(model.impossible, np.inf, model.least_hz)
