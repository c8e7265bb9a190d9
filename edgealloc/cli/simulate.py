"""The command ``edgealloc simulate``: rounds of a random cell under fading, policies compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgealloc.cli.options import LazyOptions, options_of
from edgealloc.cli.shared import console, json_option, out_path, refuse_overwriting, say, seed_option, writable

__all__ = ["simulate_command"]

_FIELDS = (
    "policy",
    "method",
    "rounds",
    "without",
    "objective",
    "excess",
    "rel_gap",
    "selected",
    "energy_j",
    "most_used",
    "seconds",
)
# Heading, unit, whether numbers, and in which order a narrow terminal leaves it out.
_COLUMNS: tuple[tuple[str, str, bool, int], ...] = (
    ("policy", "", False, 0),
    ("method", "", False, 0),
    ("rounds", "", True, 3),
    ("without", "", True, 0),
    ("bound G", "", True, 0),
    ("excess", "", True, 0),
    ("rel_gap", "", True, 2),
    ("devices", "", True, 1),
    ("energy", "J", True, 0),
    ("used", "", True, 0),
    ("time", "s", True, 4),
)
_LEGEND = """bound G, excess (over G with nothing scarce), rel_gap, devices: means over the
rounds that every policy can serve, which are counted as rounds;
without: rounds with no allocation; energy: of all devices and rounds;
used: share of its battery that the hardest-working device spent;
time: median a round"""


def _options() -> list[click.Option]:
    from edgealloc.rounds.simulation import SimulateOptions
    from edgealloc.scenario.options import CellOptions

    return [*options_of(SimulateOptions), *options_of(CellOptions)]


@click.command("simulate", cls=LazyOptions, more=_options, short_help="rounds under fading: policies compared")
@seed_option
@click.option("--out", type=out_path, callback=writable, help="write every round to this CSV file")
@click.option("--plot", type=out_path, callback=writable, help="draw the rounds into this PNG file")
@json_option
def simulate_command(seed: int, out: Path | None, plot: Path | None, as_json: bool, **options: Any) -> None:
    """Draw a cell, play energy policies and methods through the same rounds, and list what each costs.

    The bound of a policy is its mean over the rounds in which every policy has an allocation.
    """
    from dataclasses import fields

    import numpy as np

    from edgealloc.errors import needs
    from edgealloc.files.disk import write_file
    from edgealloc.report.canvas import save_figure
    from edgealloc.report.tables import print_listing
    from edgealloc.rounds.simulation import SimulateOptions, simulate, summary
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions
    from edgealloc.tables.listing import Column, Listing

    refuse_overwriting({}, [("--out", out), ("--plot", plot)])
    needs("pandas", "frame", "a table of rounds")
    if plot is not None:
        needs("matplotlib", "plot", "--plot")
    own = {f.name for f in fields(SimulateOptions)}
    settings = SimulateOptions(**{key: value for key, value in options.items() if key in own})
    rng = np.random.default_rng(seed)
    cell = make_cell(CellOptions(**{key: value for key, value in options.items() if key not in own}), rng)
    frame = simulate(settings, cell, rng)
    table = summary(frame)
    saved = []
    try:
        if out is not None:
            saved.append(write_file(frame.to_csv(index=False, lineterminator="\n"), out))
        if plot is not None:
            from edgealloc.report.simulation_picture import plot_simulation

            title = f"{cell.instance.name}: {settings.rounds} rounds, correlation {settings.correlation:g}"
            saved.append(save_figure(plot_simulation(frame, title), plot))
    finally:
        if as_json:
            say(table.to_json(orient="records", indent=1, double_precision=15))
        else:
            columns = tuple(Column(*words) for words in _COLUMNS)
            rows = tuple(
                tuple(f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in _FIELDS)
                for row in table.to_dict("records")
            )
            title = f"{cell.instance.name}: {cell.instance.words}"
            print_listing(console(), Listing(title, columns, rows, _LEGEND))
            for path in saved:
                say(f"written       {path}", err=True)
