"""The command ``edgealloc least``."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.shared import case_argument, json_option, out_path, refuse_overwriting, say, writable

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance
    from edgealloc.inverse import Least

__all__ = ["least_command"]

_FIELDS = {
    "bandwidth": "bandwidth_hz",
    "deadline": "latency_s",
    "energy": "energy_j",
    "power": "power_max_w",
    "processor": "freq_max_hz",
}
_UNITS = {
    "bandwidth": (1e-6, "MHz"),
    "deadline": (1.0, "s"),
    "energy": (1.0, "J"),
    "power": (1e3, "mW"),
    "processor": (1e-9, "GHz"),
}


@click.command("least", short_help="the least of a budget that reaches a bound")
@case_argument
@click.option("--resource", type=click.Choice(list(_FIELDS)), required=True, help="the budget to be made least")
@click.option("--target", type=float, required=True, help="the bound G to reach")
@click.option("--method", default="auto", show_default=True, help="a method, or auto for the first exact one")
@click.option("--rel-tol", type=float, default=1e-4, show_default=True, help="relative width of the bracket")
@click.option("--time-limit", type=float, help="wall-clock limit in s; the bracket so far is kept")
@click.option("--out", type=out_path, callback=writable, help="write the instance with that budget")
@json_option
def least_command(
    case: Path,
    resource: str,
    target: float,
    method: str,
    rel_tol: float,
    time_limit: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Scale one budget of an instance file until the target is just reached; both ends are proven.

    Exit status 0 when a budget reaches the target, 3 when none does, 4 when a limit or Ctrl-C left that open.
    """
    from edgealloc.api import load
    from edgealloc.files.instance import save_instance
    from edgealloc.inverse import LARGEST_FACTOR, least, scaled

    refuse_overwriting({"CASE": case}, [("--out", out)])
    instance, field = load(case), _FIELDS[resource]

    def show(low: float, high: float) -> None:
        if not as_json:
            say(f"  between {low:.9g} and {high:.9g} of the budget", err=True)

    found = least(instance, field, target, method, rel_tol=rel_tol, time_limit=time_limit, callback=show)  # type: ignore[arg-type]
    lines = [f"note          {found.message}"] if found.message else []
    if as_json:
        lines = [json.dumps(_told(found, instance), indent=1)]
    if found.result is None:
        if not as_json and found.factor_low:
            lines.append(f"not reached   {found.factor_low:.9g} of the {resource} is not enough")
        say("\n".join(lines))
        sys.exit(3 if found.factor_low >= LARGEST_FACTOR else 4)
    assert math.isfinite(found.factor)
    if not as_json:
        enough = _amount(found.result.problem.instance, resource)
        lines.append(f"reached with  {found.factor:.9g} of the {resource}, {enough}")
        lines.append(f"bound G       {found.result.objective:.9g}")
        if found.factor_low:
            too_little = scaled(instance, field, found.factor_low)  # type: ignore[arg-type]
            lines.append(f"not with      {found.factor_low:.9g} of it, {_amount(too_little, resource)} (proven)")
        else:
            lines.append("not with      nothing is proven to be too little")
    try:
        if out is not None:
            path = save_instance(scaled(instance, field, found.factor), out)  # type: ignore[arg-type]
            if not as_json:
                lines.append(f"written       {path}")
    finally:
        say("\n".join(lines))


def _told(found: Least, instance: Instance) -> dict[str, Any]:
    """The answer for machines: budgets in SI units, a list where devices have their own; null for the unknown."""
    from edgealloc.inverse import scaled

    def budget(factor: float) -> Any:
        if not (math.isfinite(factor) and factor > 0.0):
            return None
        held = getattr(scaled(instance, found.resource, factor), found.resource)
        return held.tolist() if hasattr(held, "tolist") else held

    return {
        "resource": found.resource,
        "target": found.target,
        "factor": found.factor if math.isfinite(found.factor) else None,
        "factor_low": found.factor_low,
        "enough": budget(found.factor),
        "too_little": budget(found.factor_low),
        "objective": None if found.result is None else found.result.objective,
        "solves": found.solves,
        "message": found.message,
    }


def _amount(instance: Instance, resource: str) -> str:
    """A budget with its unit; of the devices' own from the least to the greatest."""
    import numpy as np

    scale, unit = _UNITS[resource]
    low, high = (float(pick(getattr(instance, _FIELDS[resource])) * scale) for pick in (np.min, np.max))
    shared = resource in ("bandwidth", "deadline")
    return f"{low:.6g} {unit}" if shared else f"{low:.6g} to {high:.6g} {unit} a device"
