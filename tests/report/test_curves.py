"""Traces as frames, and the pictures of traces, budgets, gaps and rounds: what is drawn is what was found."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import edgealloc
from edgealloc.errors import InputError
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS
from edgealloc.report import (
    draw,
    looks_of,
    plot_bounds,
    plot_convergence,
    plot_front,
    plot_gaps,
    plot_keeps,
    plot_simulation,
    save_figure,
)
from edgealloc.report.style import LOOKS
from edgealloc.rounds.policies import POLICIES
from edgealloc.solvers.baselines import BASELINES

STEP = ["start", "devices", "penalty", "nudges", "binary_residual", "unsent", "unsent_weight", "dual_residual"]


@pytest.fixture(scope="module")
def solved(make_instance: Any) -> dict[str, Result]:
    """A cell of sub-carriers by a method that proves, one that does not, and one without a trace."""
    instance = make_instance("ofdma", 3, 8, bandwidth_hz=4e4, latency_s=8.0)
    return {name: edgealloc.solve(instance, name, rel_gap=1e-6) for name in ("bnb", "psca", "baseline:equal")}


# ---- traces as frames ----
def test_a_trace_is_a_frame_with_the_same_columns_for_every_method(solved: dict[str, Result]) -> None:
    frames = {name: result.trace_frame() for name, result in solved.items()}
    assert len({tuple(frame.dtypes.items()) for frame in frames.values()}) == 1
    for name, frame in frames.items():
        assert frame.index.tolist() == list(range(1, len(solved[name].trace) + 1))
        assert frame["lower_bound"].tolist() == [at.lower_bound for at in solved[name].trace]
    assert frames["bnb"]["nodes"].dtype == "int64"
    assert frames["bnb"]["nodes"].is_monotonic_increasing
    assert frames["bnb"][STEP].isna().all().all()


def test_steps_of_psca_are_numbers_and_its_note_says_the_same(solved: dict[str, Result]) -> None:
    frame = solved["psca"].trace_frame()
    assert frame[STEP].notna().all().all()
    assert frame["penalty"].iloc[0] == 0.0 < frame["penalty"].iloc[-1]
    assert frame["binary_residual"].iloc[-1] < 1e-3 < frame["binary_residual"].iloc[0]
    for row in frame.itertuples():
        assert f"penalty {row.penalty:.4g}" in row.note
        assert f"binary residual {row.binary_residual:.2e}" in row.note


def test_snapshots_go_to_callbacks_under_the_same_numbers(make_instance: Any) -> None:
    seen: list[int] = []
    edgealloc.solve(
        make_instance("ofdma", 3, 8, bandwidth_hz=4e4, latency_s=8.0),
        callback=lambda at: seen.append(at.iteration),
    )
    assert len(seen) > 2
    assert seen == list(range(1, len(seen) + 1))


def test_results_with_steps_can_be_pickled(solved: dict[str, Result]) -> None:
    assert pickle.loads(pickle.dumps(solved["psca"])).trace == solved["psca"].trace


# ---- one look a method ----
def test_every_method_of_ours_has_a_look_of_its_own() -> None:
    names = [*(name for name in METHODS if name != "baseline"), *(f"baseline:{name}" for name in BASELINES)]
    assert {*names, *POLICIES} <= set(LOOKS)
    assert len(
        {(look["color"], str(look["linestyle"])) for look in looks_of(names, markers=False).values()}
    ) == len(names)
    assert len({LOOKS[name] for name in POLICIES}) == len(POLICIES)


def test_a_method_looks_the_same_whatever_else_is_drawn() -> None:
    alone = {name: looks_of([name])[name] for name in ("bnb", "psca", "mine", "cvxpy:SCS", "baseline:equal")}
    together = looks_of(["theirs", *alone, "psca+"])
    assert {name: together[name] for name in alone} == alone
    assert looks_of(["cvxpy:SCS"])["cvxpy:SCS"] == looks_of(["cvxpy"])["cvxpy"]
    strange = [f"method-{i}" for i in range(10)]
    assert len({str(look) for look in looks_of(strange).values()}) == 10


# ---- pictures ----
def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize("against", ["seconds", "nodes", "iteration"])
def test_bounds_close_in_on_what_was_found(solved: dict[str, Result], against: Any) -> None:
    axes = plot_bounds(list(solved.values()), against).axes[0]
    found = solved["bnb"]
    upper, lower = (line.get_ydata() for line in axes.lines[:2])
    assert (upper[-1], lower[-1]) == (found.objective, found.lower_bound)
    assert len(upper) == len(found.trace) + 1
    assert np.all(np.diff(axes.lines[0].get_xdata()) >= 0.0)
    points = lines(axes)
    assert points["P-SCA"].get_ydata() == [solved["psca"].objective]


def test_bounds_take_results_without_an_allocation(make_instance: Any) -> None:
    infeasible = edgealloc.solve(make_instance(latency_s=0.1))
    labels = [text.get_text() for text in plot_bounds(infeasible).axes[0].get_legend().get_texts()]
    assert labels == ["convex, infeasible"]


def test_convergence_shows_objective_penalty_and_residuals(solved: dict[str, Result]) -> None:
    result, proven = solved["psca"], solved["bnb"]
    top, bottom = plot_convergence(result, proven).axes
    drawn = np.concatenate([line.get_ydata() for line in top.lines if len(line.get_ydata()) > 2])
    assert sorted(drawn) == sorted(at.objective for at in result.trace)
    assert any(np.allclose(line.get_ydata(), proven.lower_bound) for line in top.lines)
    residual = lines(bottom)["binaries that are none"].get_ydata()
    np.testing.assert_array_equal(residual, np.maximum(result.trace_frame()["binary_residual"], 1e-12))
    with pytest.raises(InputError, match="psca"):
        plot_convergence(proven)


def test_a_front_is_drawn_over_the_budget_that_differs(make_instance: Any) -> None:
    instance = make_instance("fdma", 3)
    for resource in ("bandwidth_hz", "latency_s", "energy_j", "power_max_w", "freq_max_hz"):
        results = edgealloc.front(instance, resource, [1.0, 0.01, 0.5])
        axes = plot_front(results).axes[0]
        (line,) = [line for label, line in lines(axes).items() if label.startswith("convex")]
        x, y = line.get_data()
        assert x[0] < x[1] < x[2]
        assert y[2] == results[0].objective
        crossed = lines(axes).get("infeasible, proven")
        assert (crossed is not None) == any(r.status == "infeasible" for r in results)
    both = [*results, *edgealloc.front(instance, "latency_s", [2.0])]
    with pytest.raises(InputError, match="latency_s, freq_max_hz"):
        plot_front(both)
    assert plot_front(both, "latency_s").axes[0].get_xlabel() == "deadline of a round [s]"


def test_gaps_are_a_distribution_that_reaches_the_whole() -> None:
    rows = [("auto", 1e-9), ("psca", 0.01), ("psca", 0.0), ("mine", 0.5), ("mine", np.nan)]
    axes = plot_gaps(pd.DataFrame(rows, columns=["method", "excess_gap"])).axes[0]
    drawn = lines(axes)
    assert list(drawn) == ["P-SCA (2)", "mine (1)"]
    np.testing.assert_allclose(drawn["P-SCA (2)"].get_data(), [[1e-3, 1e-3, 1.0], [0.0, 50.0, 100.0]])


def test_keep_rates_over_rounds_leave_white_who_was_not_there() -> None:
    def plan(number: int, **keeps: float | None) -> Any:
        devices = {n: {"selected": k is not None} | ({} if k is None else {"keep": k}) for n, k in keeps.items()}
        return SimpleNamespace(round_number=number, devices=devices)

    figure = plot_keeps([plan(4, a=0.5, b=0.2), plan(2, a=0.1), plan(4, a=0.5, b=0.3, c=None)])
    shown = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    nan = np.nan
    np.testing.assert_array_equal(shown, [[0.1, nan, 0.5], [nan, nan, 0.3], [nan, nan, nan]])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]


def test_nothing_to_draw_is_one_message() -> None:
    none = pd.DataFrame({key: [] for key in ("method", "policy", "round", "excess", "most_used", "excess_gap")})
    for draw_it, given in ((plot_bounds, []), (plot_gaps, none), (plot_simulation, none)):
        with pytest.raises(InputError, match="at least one"):
            draw_it(given)  # type: ignore[operator]


def test_pictures_go_onto_axes_of_ones_own(solved: dict[str, Result]) -> None:
    figure = Figure()
    axes = figure.subplots(2, 2)
    assert plot_bounds(solved["bnb"], ax=axes[0, 0]) is figure
    assert plot_convergence(solved["psca"], ax=axes[:, 1]) is figure
    frame = pd.DataFrame({"method": ["psca"], "excess_gap": [0.1]})
    assert plot_gaps(frame, ax=axes[1, 0]) is figure
    assert all(len(one.lines) for one in axes.flat)
    with pytest.raises(InputError, match="axes of a matplotlib Figure"):
        plot_bounds(solved["bnb"], ax=figure)  # type: ignore[arg-type]


def test_figures_have_the_width_of_a_column_or_a_page(solved: dict[str, Result]) -> None:
    widths = {size: plot_bounds(solved["bnb"], size=size).get_figwidth() for size in ("column", "page")}  # type: ignore[arg-type]
    assert widths == {"column": 3.5, "page": 7.16}
    with pytest.raises(InputError, match="screen, column, page"):
        plot_bounds(solved["bnb"], size="poster")  # type: ignore[arg-type]


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_are_written_in_each_format_and_the_same_each_time(
    solved: dict[str, Result], tmp_path: Path, ending: str, start: bytes
) -> None:
    twice = [
        save_figure(plot_bounds(solved["bnb"]), tmp_path / f"{i}.{ending}", dpi=40).read_bytes() for i in range(2)
    ]
    assert twice[0] == twice[1]
    assert twice[0].startswith(start)


def test_draw_adds_the_course_of_the_solve(solved: dict[str, Result], tmp_path: Path) -> None:
    names = {name: [path.name for path in draw(solved[name], tmp_path, ending="svg")] for name in ("bnb", "psca")}
    assert names["bnb"] == ["allocation.svg", "subcarriers.svg", "bounds.svg"]
    assert names["psca"] == ["allocation.svg", "subcarriers.svg", "convergence.svg"]
    quiet = replace(solved["bnb"], trace=())
    assert [path.name for path in draw(quiet, tmp_path, ending="pdf")] == ["allocation.pdf", "subcarriers.pdf"]
