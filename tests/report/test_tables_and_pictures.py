"""Tables and pictures say what the result says, for 2 to 1000 devices and every access scheme."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from rich.console import Console

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import InputError, MissingPackageError, StatusError
from edgealloc.formulation.comparison import comparison_listing
from edgealloc.formulation.listing import device_listing, ranges_text
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.report.allocation_picture import plot_allocation
from edgealloc.report.carrier_picture import plot_subcarriers
from edgealloc.report.cell_picture import plot_cell
from edgealloc.report.draw import draw
from edgealloc.report.simulation_picture import plot_simulation
from edgealloc.report.tables import proof_text, rich_table
from edgealloc.tables.listing import Listing


def rendered(listing: Listing, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(rich_table(listing))
    return console.export_text()


def devices_of(result: Result, max_rows: int = 40) -> str:
    """The table of an allocation, as a terminal shows it."""
    assert result.allocation is not None
    return rendered(device_listing(result.problem, result.allocation, max_rows))


@pytest.fixture
def positions() -> Any:
    """Factory of positions in m for K devices around the base station."""
    return lambda count: np.random.default_rng(count).normal(0.0, 200.0, size=(count, 2))


@pytest.fixture
def infeasible(make_instance: Any) -> Result:
    problem = Problem(make_instance())
    found = Diagnosis("dev-0001", "latency_s", 15.0, 20.0, "dev-0001 needs 20 s, has 15 s")
    return Result(
        problem, "convex", Status.INFEASIBLE, np.inf, np.inf, problem.free_objective, None, 0.1, diagnosis=(found,)
    )


def test_table_shows_every_device_and_its_numbers(make_instance: Any, by_hand: Any) -> None:
    result = by_hand(make_instance(devices=3), keep=0.3125)
    lines = devices_of(result).splitlines()
    use = result.problem.evaluate(result.allocation)
    for k, name in enumerate(result.problem.instance.device_names):
        (line,) = [line for line in lines if name in line]
        assert line.split()[1:4] == ["0.3125", "0.6875", "333.33"]
        assert f"{use.latency_s[k]:.3f}" in line
        assert f"{use.energy_j[k]:.3f}" in line


def test_table_names_the_binding_budget(make_instance: Any, by_hand: Any) -> None:
    instance = make_instance(devices=3)
    free = by_hand(instance)
    tight = by_hand(
        instance.with_changes(latency_s=float(free.problem.evaluate(free.allocation).latency_s[0])), keep=0.3
    )
    by_name = {line.split()[0]: line for line in devices_of(tight).splitlines() if "dev-" in line}
    assert by_name["dev-0000"].rstrip().endswith("deadline")
    assert by_name["dev-0001"].rstrip().endswith("nothing")


def test_long_table_shows_both_ends_and_the_number_left_out(make_instance: Any, by_hand: Any) -> None:
    keep = np.linspace(0.1, 0.2, 100)
    result = by_hand(make_instance(devices=100), keep=keep, freq_hz=np.full(100, 1.2e9))
    text = devices_of(result, max_rows=10)
    assert "... 90 more" in text
    assert [name for name in result.problem.instance.device_names if name in text] == [
        f"dev-{i:04d}" for i in (*range(5), *range(95, 100))
    ]


def test_table_keeps_names_that_look_like_markup(make_instance: Any, by_hand: Any) -> None:
    names = ("[bold]a", "b[/]", "[red]", "plain")
    text = devices_of(by_hand(make_instance(device_names=names, name="[x]")))
    assert all(name in text for name in (*names, "[x]"))


def test_table_shows_menu_rows_and_devices_left_out(
    make_instance: Any, by_hand: Any, menu: tuple[AdapterOption, ...]
) -> None:
    instance = make_instance(adapter_options=(menu, menu, None, None), exclusion_penalty=4.0)
    result = by_hand(instance, option=np.array([0, 1, -1, -1]), selected=np.array([True, True, True, False]))
    by_name = {line.split()[0]: line for line in devices_of(result).splitlines() if "dev-" in line}
    assert "r=4" in by_name["dev-0000"]
    assert "r=8" in by_name["dev-0001"]
    assert by_name["dev-0003"].split() == ["dev-0003", "-", "left", "out"]


def test_ofdma_table_lists_subcarriers(make_instance: Any, by_hand: Any) -> None:
    owner = np.array([0, 0, 0, 1, 1, -1, 0, 1])
    result = by_hand(make_instance("ofdma", 2, 8), owner=owner, power_w=np.full(8, 0.005))
    text = devices_of(result)
    assert "0-2, 6" in text
    assert "3-4, 7" in text


@pytest.mark.parametrize(
    ("indices", "text"), [([], "-"), ([4], "4"), ([1, 2, 3], "1-3"), ([0, 2, 3, 9], "0, 2-3, 9")]
)
def test_ranges(indices: list[int], text: str) -> None:
    assert ranges_text(indices) == text


def test_proof_states_bound_gap_and_what_is_not_proven(make_instance: Any, by_hand: Any) -> None:
    result = by_hand(make_instance())
    text = proof_text(result)
    assert f"{result.objective:.10g}" in text
    assert f"{result.lower_bound:.10g}" in text
    unproven = Result(**{f: getattr(result, f) for f in Result.__dataclass_fields__} | {"lower_bound": -np.inf})
    assert "proven        nothing" in proof_text(unproven)
    assert " of G" in text
    assert " of G" not in proof_text(unproven)


def test_proof_of_an_infeasible_instance_is_its_diagnosis(infeasible: Result) -> None:
    assert "dev-0001 needs 20 s, has 15 s" in proof_text(infeasible)
    with pytest.raises(StatusError):
        plot_allocation(infeasible)


def test_comparison_lists_the_best_first_and_the_failed_last(
    make_instance: Any, by_hand: Any, infeasible: Result
) -> None:
    worse, better = by_hand(make_instance(), keep=0.2), by_hand(make_instance(), keep=0.3)
    assert better.objective < worse.objective
    lines = [
        line for line in rendered(comparison_listing([infeasible, worse, better])).splitlines() if "e" in line
    ]
    assert f"{better.objective:.9g}" in lines[-3]
    assert f"{worse.objective:.9g}" in lines[-2]
    assert "infeasible" in lines[-1]


def test_words_of_an_instance_name_the_access_scheme(make_instance: Any) -> None:
    assert make_instance().words == "4 devices, 1 MHz, 15 s a round"
    assert "8 sub-carriers" in make_instance("ofdma").words
    assert "180 kHz" in make_instance("rb").words


def heights(axes: Any) -> list[float]:
    """Heights of all bars and of all steps of an axes."""
    bars = [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]
    return bars + [
        value for steps in axes.patches if isinstance(steps, StepPatch) for value in steps.get_data().values
    ]


@pytest.mark.parametrize("devices", [2, 20, 41, 1000])
def test_allocation_picture_has_every_device_once(make_instance: Any, by_hand: Any, devices: int) -> None:
    keep = np.linspace(0.06, 0.07, devices)
    instance = make_instance(devices=devices, bandwidth_hz=1e5 * devices)
    figure = plot_allocation(by_hand(instance, keep=keep, freq_hz=np.full(devices, 1.1e9)))
    np.testing.assert_allclose(sorted(heights(figure.axes[0])), keep)
    assert sum(heights(figure.axes[1])) * 1e3 == pytest.approx(instance.bandwidth_hz)


def test_allocation_picture_colours_devices_by_their_limit(make_instance: Any, by_hand: Any) -> None:
    instance = make_instance(devices=3)
    use = by_hand(instance).problem.evaluate(by_hand(instance).allocation)
    tight = instance.with_changes(
        latency_s=float(use.latency_s[0]), energy_j=np.array([3.0, float(use.energy_j[1]), 3.0])
    )
    figure = plot_allocation(by_hand(tight))
    colours = {
        round(bar.get_x() + bar.get_width() / 2): to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches
    }
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(set(colours.values())) == 3
    assert {"deadline only (1)", "energy only (1)", "neither (1)"} <= set(labels)


def test_cell_map_places_devices_and_sizes_them_by_spectrum(
    make_instance: Any, by_hand: Any, positions: Any
) -> None:
    place = positions(4)
    band = np.array([1e5, 2e5, 3e5, 4e5])
    result = by_hand(make_instance(), bandwidth_hz=band)
    figure = plot_cell(result, place, np.array([True, False, True, False]))
    drawn = [dots for dots in figure.axes[0].collections if dots.get_array() is not None]
    offsets = np.concatenate([np.asarray(dots.get_offsets()) for dots in drawn])
    sizes = np.concatenate([dots.get_sizes() for dots in drawn])
    order = np.lexsort(offsets.T)
    np.testing.assert_allclose(offsets[order], place[np.lexsort(place.T)])
    np.testing.assert_allclose(sizes[order] / sizes.max(), (band / band.max())[np.lexsort(place.T)])


def test_cell_map_labels_do_not_overlap(make_instance: Any, by_hand: Any) -> None:
    angle = np.linspace(0.0, 2 * np.pi, 12, endpoint=False)
    place = 150.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + [[20.0, -30.0]]
    instance = make_instance(devices=12, bandwidth_hz=5e6)
    figure = plot_cell(by_hand(instance), place)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    overlaps = [(i, j) for i in range(12) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert not overlaps


def test_cell_map_refuses_positions_of_another_cell(make_instance: Any, by_hand: Any, positions: Any) -> None:
    with pytest.raises(InputError, match=r"position_m"):
        plot_cell(by_hand(make_instance()), positions(5))


def test_subcarrier_map_marks_owner_and_the_unused(make_instance: Any, by_hand: Any) -> None:
    owner = np.array([0, 1, 1, -1, 0, 1, -1, 0])
    result = by_hand(make_instance("ofdma", 2, 8), owner=owner, power_w=np.full(8, 0.01))
    figure = plot_subcarriers(result)
    marks = np.concatenate([np.asarray(dots.get_offsets()) for dots in figure.axes[0].collections])
    assert {tuple(mark) for mark in marks if len(mark)} == {(m, k if k >= 0 else 2) for m, k in enumerate(owner)}
    with pytest.raises(InputError, match="ofdma"):
        plot_subcarriers(by_hand(make_instance()))


def test_draw_writes_what_fits(make_instance: Any, by_hand: Any, positions: Any, tmp_path: Path) -> None:
    paths = draw(by_hand(make_instance("ofdma")), tmp_path / "new", positions(4))
    assert [path.name for path in paths] == ["allocation.png", "cell.png", "subcarriers.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_pictures_of_an_allocation_go_onto_axes_of_ones_own(
    make_instance: Any, by_hand: Any, positions: Any
) -> None:
    result = by_hand(make_instance("ofdma"))
    figure = Figure()
    axes = figure.subplots(3, 2)
    assert plot_allocation(result, ax=axes[:, 0], size="column") is figure
    assert plot_cell(result, positions(4), ax=axes[0, 1]) is figure
    assert plot_subcarriers(result, ax=axes[1, 1]) is figure
    rounds = pd.DataFrame(
        {"policy": "rollover", "method": "auto", "round": [0, 1], "excess": [0.1, 0.2], "most_used": [0.0, 0.5]}
    )
    assert plot_simulation(rounds, "mine", ax=axes[1:, 1]) is figure
    assert figure.get_suptitle() == ""
    assert not figure.legends
    assert all(one.has_data() for one in axes.flat)
    figure.savefig(io.BytesIO())
    with pytest.raises(InputError, match="3 axes"):
        plot_allocation(result, ax=axes[0])
    with pytest.raises(InputError, match="axes of a matplotlib Figure"):
        plot_cell(result, positions(4), ax=figure)  # type: ignore[arg-type]


def test_pictures_of_an_allocation_have_the_width_of_a_paper(
    make_instance: Any, by_hand: Any, positions: Any
) -> None:
    result = by_hand(make_instance("ofdma"))
    for size, width in (("column", 3.5), ("page", 7.16)):
        figures = (
            plot_allocation(result, size=size),  # type: ignore[arg-type]
            plot_cell(result, positions(4), size=size),  # type: ignore[arg-type]
            plot_subcarriers(result, size=size),  # type: ignore[arg-type]
        )
        assert [figure.get_figwidth() for figure in figures] == [width] * 3
        for figure in figures:
            figure.savefig(io.BytesIO())
    with pytest.raises(InputError, match="screen, column, page"):
        plot_cell(result, positions(4), size="poster")  # type: ignore[arg-type]


def test_pictures_leave_pyplot_alone(make_instance: Any, by_hand: Any) -> None:
    """A library that touches pyplot changes the back end and leaks figures in the caller's program."""
    before = "matplotlib.pyplot" in sys.modules
    plot_allocation(by_hand(make_instance()))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_missing_matplotlib_names_the_extra(
    make_instance: Any, by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgealloc.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"edgealloc\[plot\]"):
        plot_allocation(by_hand(make_instance()))
