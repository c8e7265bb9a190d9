"""Your own problem in the branch-and-bound engine: the six-hump camel function, whose minimum is known.

    f(x, y) = (4 - 2.1 x^2 + x^4 / 3) x^2 + x y + (4 y^2 - 4) y^2   on [-2, 2] x [-1, 1]

has six local minima and two global ones of value -1.0316284535 (Dixon and Szego, 1978). A Taylor expansion about
the centre of a box with a bound of the smallest curvature in it bounds f from below; boxes are halved.

Run it:  python examples/toy_bnb.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.search.engine import Found, Outcome, Relaxation, Relaxed, branch_and_bound

KNOWN_MINIMUM = -1.0316284535


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A box: ranges of x and y."""

    x: tuple[float, float]
    y: tuple[float, float]


def camel(x: float, y: float) -> float:
    """The function."""
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def least_curvature(box: Rectangle) -> float:
    """Lower bound of the smallest eigenvalue of the Hessian; its off-diagonal entries are 1 (Gershgorin)."""
    u_low, u_high = (0.0 if box.x[0] < 0 < box.x[1] else min(v * v for v in box.x)), max(v * v for v in box.x)
    u = min(max(1.26, u_low), u_high)  # 8 - 25.2 u + 10 u^2 in u = x^2 is least at 1.26
    y_low = 0.0 if box.y[0] < 0 < box.y[1] else min(v * v for v in box.y)
    return min(8 - 25.2 * u + 10 * u * u, -8 + 48 * y_low) - 1.0


class Camel(Relaxation[Rectangle, tuple[float, float]]):
    """What the engine needs to know of the problem."""

    def root(self) -> Rectangle:
        return Rectangle((-2.0, 2.0), (-1.0, 1.0))

    def relax(
        self,
        box: Rectangle,
        guess: Any,
        best: Found[tuple[float, float]] | None,
        cutoff: float,
        control: Control,
    ) -> Relaxed[Rectangle, tuple[float, float]]:
        x, y = sum(box.x) / 2, sum(box.y) / 2
        rx, ry = (box.x[1] - box.x[0]) / 2, (box.y[1] - box.y[0]) / 2
        slope_x = 8 * x - 8.4 * x**3 + 2 * x**5 + y
        slope_y = x - 8 * y + 16 * y**3
        value = camel(x, y)
        drop = 0.5 * min(least_curvature(box), 0.0) * (rx * rx + ry * ry)
        bound = value - abs(slope_x) * rx - abs(slope_y) * ry + drop - 1e-12
        if rx > ry:
            children = (Rectangle((box.x[0], x), box.y), Rectangle((x, box.x[1]), box.y))
        else:
            children = (Rectangle(box.x, (box.y[0], y)), Rectangle(box.x, (y, box.y[1])))
        return Relaxed(bound, (Found(value, (x, y)),), children, branched_on="x" if rx > ry else "y")


def solve(rel_gap: float = 1e-6) -> Outcome[tuple[float, float]]:
    """Minimise the function with proof."""
    with Control(Options(rel_gap=rel_gap)) as control:
        return branch_and_bound(Camel(), control)


if __name__ == "__main__":
    outcome = solve()
    assert outcome.best is not None
    print(f"minimum between {outcome.lower_bound:.9f} and {outcome.upper:.9f} (known: {KNOWN_MINIMUM:.9f})")
    print(f"at x, y = {outcome.best.point}, {outcome.nodes} nodes, depth {outcome.tree.depth}")
