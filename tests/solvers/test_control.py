"""Ctrl-C at odd moments: in a method that another runs, and where it is not for us."""

from __future__ import annotations

import signal

import pytest

from edgealloc.solvers.base import Control, Options


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
