"""The command ``edgealloc simulate``: rounds of a random cell under fading, policies compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgealloc.cli.options import LazyOptions, options_of

__all__ = ["simulate_command"]


def _options() -> list[click.Option]:
    from edgealloc.rounds.simulation import SimulateOptions
    from edgealloc.scenario.options import CellOptions

    return [*options_of(SimulateOptions), *options_of(CellOptions)]


@click.command("simulate", cls=LazyOptions, more=_options, short_help="rounds under fading: policies compared")
@click.option("--seed", type=int, default=0, show_default=True, help="seed of all random draws")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="write every round to this CSV file")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="draw the rounds into this PNG file")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def simulate_command(seed: int, out: Path | None, plot: Path | None, as_json: bool, **options: Any) -> None:
    """Draw a cell, play energy policies and methods through the same rounds, and list what each costs.

    The bound of a policy is its mean over the rounds in which every policy has an allocation.
    """
    from dataclasses import fields

    import numpy as np

    from edgealloc.report.tables import cell_text
    from edgealloc.rounds.simulation import SimulateOptions, simulate, summary
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions

    for path in (out, plot):
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"the folder {str(path.parent)!r} does not exist")
    own = {f.name for f in fields(SimulateOptions)}
    settings = SimulateOptions(**{key: value for key, value in options.items() if key in own})
    rng = np.random.default_rng(seed)
    cell = make_cell(CellOptions(**{key: value for key, value in options.items() if key not in own}), rng)
    frame = simulate(settings, cell, rng)
    table = summary(frame)
    if as_json:
        click.echo(table.to_json(orient="records", indent=1))
    else:
        click.echo(f"{cell.instance.name}: {cell_text(cell.instance)}\n")
        click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    if out is not None:
        frame.to_csv(out, index=False)
    if plot is not None:
        from edgealloc.report.simulation_picture import plot_simulation

        title = f"{cell.instance.name}: {settings.rounds} rounds, correlation {settings.correlation:g}"
        plot_simulation(frame, title).savefig(plot)
    for path in (out, plot):
        if path is not None and not as_json:
            click.echo(f"written       {path}", err=True)
