"""Tables say the same in a terminal of any width, in a notebook and in a paper; no number is ever cut."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

import edgealloc
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import StatusError
from edgealloc.formulation.comparison import Comparison, comparison_listing
from edgealloc.formulation.listing import device_listing
from edgealloc.report.tables import print_listing
from edgealloc.tables.listing import Column, Listing


def printed(listing: Listing, width: int) -> str:
    stream = io.StringIO()
    print_listing(Console(width=width, file=stream), listing)
    return stream.getvalue()


@pytest.fixture(scope="module")
def compared(make_instance: Any) -> Comparison:
    instance = make_instance("ofdma", 3, 8, bandwidth_hz=4e4, latency_s=8.0)
    return edgealloc.compare(instance, ["bnb", "psca", "baseline:best-channel"])


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_no_number_is_cut_at_any_width(compared: Comparison, width: int) -> None:
    result = compared[0]
    for whole in (device_listing(result.problem, result.allocation), comparison_listing(compared)):  # type: ignore[arg-type]
        shown, text = whole.fitted(width), printed(whole, width)
        words = text.split()
        numbers = [c for row in shown.rows for c, col in zip(row, shown.columns, strict=True) if col.number]
        assert numbers
        assert all(number in words for number in numbers)
        assert "…" not in text
        gone = {column.head for column in whole.columns} - {column.head for column in shown.columns}
        assert gone == set(shown.note.removeprefix("no room for: ").split(", ")) - {""}


def test_tables_fit_into_eighty_columns(compared: Comparison) -> None:
    result = compared[0]
    listings = (device_listing(result.problem, result.allocation), comparison_listing(compared))  # type: ignore[arg-type]
    for text in (printed(listing, 80) for listing in listings):
        assert max(map(len, text.splitlines())) <= 80
    assert printed(listings[0], 200).count("dropout") == 1


def test_long_names_are_folded_where_there_is_no_room(make_instance: Any, by_hand: Any) -> None:
    names = ("n" * 60, "short", "a name of many words that goes on and on", "[x]")
    result = by_hand(make_instance(device_names=names))
    text = printed(device_listing(result.problem, result.allocation), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("n") >= 60
    assert "dropout" in text
    assert "n" * 60 in printed(device_listing(result.problem, result.allocation), 200)


def test_latex_holds_every_device_and_escapes_what_latex_reads(make_instance: Any, by_hand: Any) -> None:
    names = ("a_1", "50%", r"c\d", "e & f")
    menu = (AdapterOption("r=4 #1", 5e5, 1e8, 1.4),)
    result = by_hand(make_instance(device_names=names, adapter_options=(menu,) * 4))
    text = result.to_latex()
    for told in (r"a\_1 &", r"50\% &", r"c\textbackslash{}d &", r"e \& f &", r"r=4 \#1", r"\toprule", "[kHz]"):
        assert told in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(rows[0].split(" & ")) - 1}
    assert f"{result.allocation.keep[0]:.4f}" in text


def test_latex_needs_an_allocation(make_instance: Any) -> None:
    with pytest.raises(StatusError):
        edgealloc.solve(make_instance(latency_s=0.1)).to_latex()


def test_comparisons_are_lists_that_show_themselves(compared: Comparison) -> None:
    assert isinstance(compared, list)
    assert [line.split(":")[0].strip() for line in repr(compared).splitlines()[1:]] == [
        "bnb",
        "psca",
        "baseline",
    ]
    frame = compared.to_frame()
    assert frame["method"].tolist() == ["bnb", "psca", "baseline:best-channel"]
    assert (frame["best_bound"] == compared[0].lower_bound).all()
    assert frame["rel_gap"].iloc[0] == compared[0].rel_gap
    assert compared.to_latex().count(r"\\") == 4
    assert repr(Comparison()) == "Comparison of no methods"


def test_notebooks_get_tables_and_nothing_of_a_name_is_markup(make_instance: Any, by_hand: Any) -> None:
    names = ("<b>x</b>", "b", "c", "d")
    instance = make_instance(device_names=names, name="<i>cell</i>")
    result = by_hand(instance)
    for html in (instance._repr_html_(), result._repr_html_(), Comparison([result])._repr_html_()):
        assert "<table>" in html
        assert "<i>" not in html
        assert "<b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in instance._repr_html_()
    assert "<table>" not in edgealloc.solve(make_instance(latency_s=0.1))._repr_html_()


def test_an_instance_is_one_line_and_a_large_one_a_short_table(make_instance: Any) -> None:
    instance = make_instance("ofdma", 200, 8, exclusion_penalty=2.0)
    text = repr(instance)
    assert "\n" not in text
    assert len(text) < 120
    assert "8 sub-carriers" in text
    assert "selection" in text
    html = instance._repr_html_()
    assert html.count("<tr>") == 1 + 21
    assert "... 180 more" in html


def test_columns_that_can_be_spared_give_way_in_their_order() -> None:
    columns = (Column("name", number=False), Column("one", spare=1), Column("two", spare=2), Column("three"))
    listing = Listing("", columns, (("n", "1.5", "2.5", "3.5"),))
    assert listing.fitted(100) is listing
    assert [column.head for column in listing.fitted(22).columns] == ["name", "one", "three"]
    assert [column.head for column in listing.fitted(1).columns] == ["name", "three"]
    assert listing.fitted(1).note == "no room for: two, one"
