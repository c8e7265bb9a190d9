"""Ctrl-C at odd moments: in a method that another runs, and where it is not for us."""

from __future__ import annotations

import signal

import pytest

from edgealloc import compare, front
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.baselines import solve_baseline
from tests.conftest import small_instance


def test_ctrl_c_in_an_inner_solve_stops_the_outer_too() -> None:
    """One press is enough, whichever of them happens to be at work; two raise."""
    before = signal.getsignal(signal.SIGINT)
    with Control(Options()) as outer:
        with Control(Options()) as inner:
            signal.raise_signal(signal.SIGINT)
            assert inner.stopped()
            assert not outer.stopped()
        assert outer.reason == "interrupted"
        with Control(Options()) as later:
            assert not later.stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_limit_of_an_inner_solve_is_its_own() -> None:
    with Control(Options()) as outer:
        with Control(Options(time_limit=1e-9)) as inner:
            assert inner.stopped()
        assert not outer.stopped()


def test_ctrl_c_that_is_ignored_stays_so() -> None:
    """A shell's script starts what is to run in the background with Ctrl-C ignored: it is meant for others."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Control(Options()) as control:
            signal.raise_signal(signal.SIGINT)
            assert not control.stopped()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_comparison_and_keeps_what_was_found() -> None:
    """The method at work gives what it has; the next is not started."""

    def pressed(problem: Problem, options: Options) -> Result:
        signal.raise_signal(signal.SIGINT)
        return solve_baseline(problem, options, "equal")

    found = compare(small_instance(), ["convex", pressed, "convex"])
    assert [result.status.has_allocation for result in found] == [True, True]


def test_ctrl_c_ends_a_front_at_the_point_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []

    def pressed(problem: Problem, options: Options) -> Result:
        started.append(problem.instance.latency_s)
        if len(started) == 2:
            signal.raise_signal(signal.SIGINT)
        return solve_baseline(problem, options, "equal")

    points = front(small_instance(), "latency_s", [1.0, 1.1, 1.2], pressed)
    assert len(points) == len(started) == 2


def test_ctrl_c_ends_a_solve_of_a_series_and_then_the_series() -> None:
    before = signal.getsignal(signal.SIGINT)
    ended: list[object] = []

    def one(pressed: bool) -> None:
        with Control.of_a_series():
            with Control(Options()) as control:
                if pressed:
                    signal.raise_signal(signal.SIGINT)
                ended.append(control.stopped())
            ended.append("whole")

    one(pressed=False)
    with pytest.raises(KeyboardInterrupt):
        one(pressed=True)
    assert ended == [False, "whole", True, "whole"]
    assert signal.getsignal(signal.SIGINT) is before
