"""``edgealloc new``: an instance, drawn or from tables of one's own; ``edgealloc export``: one as a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgealloc.cli.options import LazyOptions, options_of
from edgealloc.cli.shared import (
    case_argument,
    constraints_of,
    constraints_option,
    out_path,
    refuse_overwriting,
    say,
    seed_option,
    writable,
)

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance

# Options of a random cell that mean the same for devices of one's own.
_ALSO_OWN = (
    "access", "block_hz", "bandwidth_hz", "latency_s", "energy_static_j", "downlink_bps", "keep_min", "keep_max",
    "underfit", "underfit_weight", "pooling", "name",
)  # fmt: skip


def _new_options() -> list[click.Option]:
    from edgealloc.scenario.options import CellOptions

    return options_of(CellOptions)


@click.command(
    "new", cls=LazyOptions, more=_new_options, short_help="draw a random instance, or make one of tables"
)
@seed_option
@click.option("--out", type=out_path, callback=writable, help="instance file; standard output when not given")
@click.option(
    "--positions", type=out_path, callback=writable, help="also write where the devices are (for --plot)"
)
@click.option("--from", "table", type=click.Path(path_type=Path), help="devices of your own: a .csv, a row each")
@click.option(
    "--gains", help="with --from: gains [K] or [K, M], .npy, .npz, .mat or .csv; FILE:NAME for one of many"
)
@click.option("--gains-db", help="the same, in dB")
@click.option(
    "--set", "values", multiple=True, metavar="NAME=VALUE", help="with --from: one value for every device"
)
@click.option(
    "--ignore", multiple=True, metavar="COLUMN", help="with --from: a column that is none of the instance"
)
@click.pass_context
def new_command(
    ctx: click.Context,
    /,
    seed: int,
    out: Path | None,
    positions: Path | None,
    table: Path | None,
    gains: str | None,
    gains_db: str | None,
    values: tuple[str, ...],
    ignore: tuple[str, ...],
    **options: Any,
) -> None:
    """Draw a random, realistic instance: devices dropped in a cell, their channels, processors and budgets.

    The spectrum is bought for `reference-keep`, so the cell is tight and feasible unless a bandwidth is given.

    With --from nothing is drawn: columns and --set names are fields of an instance, also in other units
    (power_dbm, bandwidth_mhz); what is not given is typical, and said.
    """
    import numpy as np

    from edgealloc.files.disk import write_json
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions
    from edgealloc.tables.arrays import file_of

    channel = {
        flag: file_of(text)[0] if text else None
        for flag, text in {"--gains": gains, "--gains-db": gains_db}.items()
    }
    refuse_overwriting({"--from": table, **channel}, [("--out", out), ("--positions", positions)])
    if table is not None:
        instance = _own(ctx, table, {"gain": gains, "gain_db": gains_db, "ignore": ignore}, values, options)
        _hand_out(instance, out)
        return
    if gains is not None or gains_db is not None or values or ignore:
        raise click.UsageError(
            "--gains, --gains-db, --set and --ignore go with --from; a random cell draws its own"
        )
    cell = make_cell(CellOptions(**options), np.random.default_rng(seed))
    if positions is not None:
        place = {"position_m": cell.position_m.tolist(), "line_of_sight": cell.line_of_sight.tolist()}
        write_json(place, positions)
    _hand_out(cell.instance, out)


def _hand_out(instance: Instance, out: Path | None) -> None:
    """Print the instance, or write it and say what it is."""
    from edgealloc.files.instance import dict_from_instance, save_instance

    if out is None:
        say(json.dumps(dict_from_instance(instance), indent=1))
    else:
        path = save_instance(instance, out)
        say(f"{instance.name}: {instance.words}\nwritten       {path}", err=True)


def _own(
    ctx: click.Context, table: Path, given: dict[str, Any], values: tuple[str, ...], options: dict[str, Any]
) -> Instance:
    """The instance of a table; options of a random cell count where they were typed and mean the same here."""
    from edgealloc.data.instance import Instance
    from edgealloc.data.plausible import warn

    typed = [o for o in ctx.params if ctx.get_parameter_source(o) is ParameterSource.COMMANDLINE]
    drawn = [o for o in typed if (o in options and o not in _ALSO_OWN) or o in ("seed", "positions")]
    if drawn:
        flags = ", ".join("--" + name.replace("_", "-") for name in drawn)
        raise click.UsageError(f"{flags}: for a random cell; with --from give columns, or --set NAME=VALUE")
    single = {key: options[key] for key in _ALSO_OWN if key in typed}
    for text in values:
        name, mark, value = text.partition("=")
        if not mark:
            raise click.UsageError(f"--set {text}: NAME=VALUE is wanted")
        single[name.strip()] = _number_or_text(value.strip())
    instance = Instance.from_frame(table, **given, **single)
    warn(instance)
    if instance.assumed:
        say(f"assumed       {instance.assumed_text()}", err=True)
    return instance


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


@click.command("export", short_help="write an instance as a model file for other solvers")
@case_argument
@click.option("--to", type=click.Choice(["nl", "gms", "mps", "lp", "cbf"]), help="by the file's ending, if absent")
@click.option("--out", type=out_path, callback=writable, required=True, help="write the model to this file")
@constraints_option
@click.option("--rel-gap", type=float, default=1e-3, show_default=True, help="of the program in mps and lp")
def export_command(case: Path, to: str | None, out: Path, constraints: Path | None, rel_gap: float) -> None:
    """Write the model that a back end solves: nl and gms by Pyomo, mps and lp by HiGHS.

    mps and lp hold a program of proven lines whose optimum is that of the instance within --rel-gap.
    """
    from edgealloc.api import as_problem
    from edgealloc.export import export

    refuse_overwriting({"CASE": case, "--constraints": constraints}, [("--out", out)])
    problem = as_problem(case, constraints_of(constraints))
    say(f"written       {export(problem, out, to or '', rel_gap)}")
