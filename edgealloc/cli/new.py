"""``edgealloc new``: a random, realistic instance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edgealloc.cli.options import LazyOptions, options_of
from edgealloc.cli.shared import out_path, refuse_overwriting, say, seed_option, writable


def _new_options() -> list[click.Option]:
    from edgealloc.scenario.options import CellOptions

    return options_of(CellOptions)


@click.command("new", cls=LazyOptions, more=_new_options, short_help="draw a random, realistic instance")
@seed_option
@click.option("--out", type=out_path, callback=writable, help="instance file; standard output when not given")
@click.option(
    "--positions", type=out_path, callback=writable, help="also write where the devices are (for --plot)"
)
def new_command(seed: int, out: Path | None, positions: Path | None, **options: Any) -> None:
    """Draw a random, realistic instance: devices dropped in a cell, their channels, processors and budgets.

    The spectrum is bought for `reference-keep`, so the cell is tight and feasible unless a bandwidth is given.
    """
    import numpy as np

    from edgealloc.files.disk import write_json
    from edgealloc.files.instance import dict_from_instance, save_instance
    from edgealloc.report.tables import cell_text
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions

    refuse_overwriting({}, [("--out", out), ("--positions", positions)])
    cell = make_cell(CellOptions(**options), np.random.default_rng(seed))
    if positions is not None:
        place = {"position_m": cell.position_m.tolist(), "line_of_sight": cell.line_of_sight.tolist()}
        write_json(place, positions)
    if out is None:
        say(json.dumps(dict_from_instance(cell.instance), indent=1))
    else:
        path = save_instance(cell.instance, out)
        say(f"{cell.instance.name}: {cell_text(cell.instance)}\nwritten       {path}", err=True)
