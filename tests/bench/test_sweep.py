"""The sweep: resumable to the same frame, honest about failures, readable tables and figures."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pd = pytest.importorskip("pandas")
pytest.importorskip("joblib")

import edgealloc  # noqa: E402
from edgealloc.bench import sweep as bench  # noqa: E402
from edgealloc.bench.charts import draw_bench, plot_sweep, plot_times  # noqa: E402
from edgealloc.bench.preview import draw_demo  # noqa: E402
from edgealloc.bench.reproduction import differences  # noqa: E402
from edgealloc.bench.suites import SUITES, Suite  # noqa: E402
from edgealloc.bench.sweep import TIMES, BenchOptions, cells_of, frame_of, run_suite, save_frame  # noqa: E402
from edgealloc.bench.tables import summary, time_table, to_latex, to_markdown  # noqa: E402
from edgealloc.cli.app import main  # noqa: E402
from edgealloc.errors import InputError  # noqa: E402
from edgealloc.solvers.base import Control, Options  # noqa: E402

METHODS = ("convex", "psca", "baseline:equal", "baseline:no-dropout")


@pytest.fixture(scope="module")
def suite() -> Suite:
    """An FDMA cell and an OFDMA cell, which `convex` does not take."""
    smoke = SUITES["smoke"]()
    return replace(smoke, cases=(smoke.cases[2], smoke.cases[0]), methods=METHODS)


@pytest.fixture(scope="module")
def frame(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return run_suite(suite, tmp_path_factory.mktemp("whole"))


def _but_times(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=list(TIMES))


def test_rows_say_what_happened(frame: pd.DataFrame) -> None:
    assert list(frame["method"]) == list(METHODS) * 2
    by = frame.set_index(["access", "method"], drop=False)
    assert by.loc[("fdma", "convex"), "status"] == "optimal"
    assert by.loc[("fdma", "psca"), "verified"]
    assert by.loc[("fdma", "psca"), "excess_gap"] < 1e-3
    refused = frame[(frame["method"] == "convex") & (frame["status"] == "refused")]
    assert len(refused) == 1  # the OFDMA cell: the row is there, with the reason
    assert "log-convex" in refused["message"].iloc[0]
    assert (frame.loc[frame["status"] == "no_solution", "message"].str.contains("no feasible")).all()
    assert frame["instance_hash"].notna().all()
    assert frame["version_numpy"].nunique() == 1


def test_killed_and_resumed_gives_the_same_frame(
    suite: Suite, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    honest = bench.run_cell

    def killed(cell: bench.Cell) -> dict[str, object]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return honest(cell)

    monkeypatch.setattr(bench, "run_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path)
    finished = sorted((tmp_path / "cells").glob("*.json"))
    assert len(finished) == 3
    stamps = [path.stat().st_mtime_ns for path in finished]
    resumed = run_suite(suite, tmp_path)
    assert calls == 4 + 5  # three were on disk, the fourth and the rest were run
    assert [path.stat().st_mtime_ns for path in finished] == stamps
    pd.testing.assert_frame_equal(_but_times(resumed), _but_times(frame))


def test_what_ctrl_c_cut_short_is_no_row(suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solve takes the first Ctrl-C as the wish for its incumbent; resumed, the suite would keep that."""
    honest = edgealloc.solve

    def pressed(instance: edgealloc.Instance, *args: Any, **options: Any) -> edgealloc.Result:
        with Control(Options()) as control:
            signal.raise_signal(signal.SIGINT)
            assert control.stopped()
        return honest(instance, *args, **options)

    monkeypatch.setattr("edgealloc.api.solve", pressed)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, tmp_path)
    assert not list((tmp_path / "cells").glob("*.json"))


def test_processes_give_the_same_frame(suite: Suite, frame: pd.DataFrame, tmp_path: Path) -> None:
    parallel = run_suite(suite, tmp_path, options=BenchOptions(jobs=2))
    pd.testing.assert_frame_equal(_but_times(parallel), _but_times(frame))


@pytest.mark.slow
def test_dask_gives_the_same_frame(suite: Suite, frame: pd.DataFrame, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None):
        spread = run_suite(suite, tmp_path, options=BenchOptions(jobs=2, backend="dask"))
    pd.testing.assert_frame_equal(_but_times(spread), _but_times(frame))


@pytest.mark.slow
def test_ray_gives_the_same_frame(
    suite: Suite, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        register_ray()
        spread = run_suite(suite, tmp_path, options=BenchOptions(jobs=2, backend="ray"))
    finally:
        ray.shutdown()
    pd.testing.assert_frame_equal(_but_times(spread), _but_times(frame))


def test_another_option_is_another_cell(suite: Suite) -> None:
    one, two = (cells_of(suite, METHODS, BenchOptions(rel_gap=g)) for g in (1e-4, 1e-3))
    assert not {c.key for c in one} & {c.key for c in two}
    assert len({c.key for c in one}) == len(one)


def test_files_and_tables(frame: pd.DataFrame, tmp_path: Path) -> None:
    paths = save_frame(frame, tmp_path, "small")
    again = pd.read_csv(paths[0])
    np.testing.assert_allclose(again["objective"], frame["objective"], rtol=1e-15)
    if len(paths) > 1:
        pd.testing.assert_frame_equal(pd.read_parquet(paths[1]), frame, check_dtype=False)
    table = summary(frame)
    row = table[(table["access"] == "fdma") & (table["method"] == "psca")].iloc[0]
    assert row["feasible"] == row["cells"] == 1
    assert row["worst %"] < 0.1
    text = to_markdown(table)
    assert text.count("\n") == len(table) + 2
    assert "median s" not in to_markdown(table, times=False)
    assert r"median gap \%" in to_latex(table)


def test_gap_is_taken_against_the_best_bound() -> None:
    shared = {"case": "a", "verified": True, "free_objective": 0.5, "rel_gap_asked": 1e-6}
    rows = [
        shared | {"method": "x", "status": "optimal", "objective": 1.0, "lower_bound": 0.9},
        shared | {"method": "y", "status": "locally_solved", "objective": 1.1, "lower_bound": None},
        shared | {"method": "z", "status": "no_solution", "objective": None, "lower_bound": None},
    ]
    out = frame_of(rows)
    np.testing.assert_allclose(out["excess_gap"], [0.1 / 0.5, 0.2 / 0.6, np.nan])
    np.testing.assert_allclose(out["gap"], [0.1, 0.2 / 1.1, np.nan])
    for row in rows:  # where the optimum may be G_free itself, the excess gap is 0 / 0
        row["free_objective"] = 1.0 - 1e-7
    assert frame_of(rows)["excess_gap"].isna().all()
    np.testing.assert_allclose(frame_of(rows)["gap"], [0.1, 0.2 / 1.1, np.nan])
    rows[1]["verified"] = False  # an allocation that fails the check has no objective
    assert np.isnan(frame_of(rows)["objective"][1])


def test_check_against_a_committed_table(suite: Suite, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = save_frame(frame, tmp_path, "committed")[0]
    committed = pd.read_csv(path)
    assert differences(frame, committed) == []
    assert differences(frame.iloc[:2], committed) == []  # a part of it, as --limit gives
    moved = committed.copy()
    moved.loc[1, "objective"] *= 1.0 + 1e-6
    assert any("objective" in line and "psca" in line for line in differences(frame, moved))
    moved = committed.drop(index=1)
    assert differences(frame, moved) == ["psca on fdma-6: not in the committed table"]
    moved = committed.assign(instance_hash="other")
    assert len(differences(frame, moved)) == len(frame)


def test_limits_are_no_differences() -> None:
    """How far an exact method comes in its time is the machine's; that P-SCA's allocation changed is not."""
    shared = {"case": "a", "verified": True, "free_objective": 0.5, "instance_hash": "h", "rel_gap_asked": 1e-6}
    rows = [
        shared | {"seed": 0, "method": "auto", "status": "optimal", "objective": 1.0, "lower_bound": 1.0},
        shared | {"seed": 0, "method": "psca", "status": "locally_solved", "objective": 1.1, "lower_bound": None},
    ]
    stopped = [rows[0] | {"status": "feasible", "lower_bound": 0.9}, rows[1]]
    assert differences(frame_of(rows), frame_of(stopped)) == []
    worse = [rows[0] | {"status": "feasible"}, rows[1] | {"objective": 1.2}]
    assert len(differences(frame_of(rows), frame_of(worse))) == 1
    bounded = [rows[0] | {"lower_bound": 0.9}, rows[1]]
    assert len(differences(frame_of(rows), frame_of(bounded))) == 2  # both gaps


def test_time_to_the_same_quality() -> None:
    shared = {"case": "a", "verified": True, "free_objective": 0.5, "num_devices": 2, "num_subcarriers": 8}
    shared |= {"rel_gap_asked": 1e-6}
    steps = [[0.1, 1.2], [0.4, 1.05], [0.7, 1.0]]
    rows = [
        shared
        | {"method": "auto", "status": "optimal", "objective": 1.0, "lower_bound": 1.0, "seconds": 0.9}
        | {"incumbents": steps},
        shared
        | {"method": "psca", "status": "locally_solved", "objective": 1.1, "seconds": 0.2, "incumbents": []},
        shared
        | {"method": "psca+", "status": "locally_solved", "objective": 1.0, "seconds": 0.5, "incumbents": []},
    ]
    out = frame_of(rows)
    np.testing.assert_allclose(out["seconds_to_psca"], [0.4, 0.2, 0.5])
    np.testing.assert_allclose(out["seconds_to_1_percent"], [0.7, np.nan, 0.5])
    row = time_table(out).iloc[0]
    assert row["psca faster"] == pytest.approx(2.0)
    assert row["not reached"] == 0
    rows[1] |= {"objective": 0.99}  # better than the exact method ever was: all its seconds count
    row = time_table(frame_of(rows)).iloc[0]
    assert row["not reached"] == 1
    assert row["psca faster"] == pytest.approx(4.5)


def test_demo_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    demo = SUITES["demo"]()
    short = replace(demo, cases=demo.cases[1:3], methods=("psca", "baseline:equal"))
    monkeypatch.setitem(SUITES, "demo", lambda: short)
    assert draw_demo(tmp_path).stat().st_size > 10_000


def test_figures_show_every_method(frame: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sweep = frame.assign(x=1.0, x_label="deadline, relative")
    figure = plot_sweep(sweep)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(METHODS)
    assert any("infeasible on 2 of 2" in label for label in labels)  # no-dropout stays in the legend
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert len(plot_times(frame.assign(x=16.0, x_label="K M")).axes[0].containers) >= 2
    assert [path.name for path in draw_bench(frame, tmp_path, "a")] == ["a-gaps.png"]


def test_suites_cover_what_the_benchmark_asks_for() -> None:
    for name, build in SUITES.items():
        listed = build()
        assert listed.name == name
        assert len({case.name for case in listed.cases}) == len(listed.cases)
    cases = SUITES["gap"]().cases
    assert len(cases) >= 200
    assert {case.options["access"] for case in cases} == {"fdma", "rb", "ofdma"}
    first = SUITES["deadline"]().cases[0]
    assert first.instance().latency_s == pytest.approx(0.85 * 30.0)


def test_command_line(tmp_path: Path) -> None:
    listing = CliRunner().invoke(main, ["bench"])
    assert listing.exit_code == 0
    assert "heterogeneity" in listing.output
    args = ["bench", "smoke", "--methods", "psca", "--limit", "1", "--out", str(tmp_path), "--no-figures"]
    run = CliRunner().invoke(main, [*args, "--results", str(tmp_path / "kept")])
    assert run.exit_code == 0, run.output
    committed = tmp_path / "kept" / "smoke.csv"
    assert committed.read_bytes() == (tmp_path / "smoke" / "smoke.csv").read_bytes()
    assert CliRunner().invoke(main, [*args, "--check", str(committed)]).exit_code == 0
    table = pd.read_csv(committed)
    table.assign(objective=table["objective"] + 1e-3).to_csv(committed, index=False)
    changed = CliRunner().invoke(main, [*args, "--check", str(committed)])
    assert changed.exit_code == 1
    assert "DIFFERS: psca on ofdma-2x8: objective" in changed.output
    assert CliRunner().invoke(main, ["bench", "nothing"]).exit_code == 2
    assert (
        CliRunner().invoke(main, ["bench", "smoke", "--methods", "magic", "--out", str(tmp_path)]).exit_code == 2
    )


def test_unknown_method_is_refused_before_any_work(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="magic"):
        run_suite(suite, tmp_path, ("psca", "magic"))
    assert not list(tmp_path.glob("cells/*"))
