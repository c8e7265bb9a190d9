"""The state of a run between two rounds, in one file, so that a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.files.disk import make_folder, write_file
from edgealloc.models.exchange.wire import WireArray


@dataclass(frozen=True, slots=True)
class Point:
    """A model.

    Parameters
    ----------
    state
        The adapter, full size, by name: A [rank, n_in], B [n_out, rank], and the head.
    residual
        What the exact aggregation has added to the base weights, in units of B A: dW [n_out, n_in] by layer.
    """

    state: dict[str, WireArray]
    residual: dict[str, WireArray]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands.

    Parameters
    ----------
    now, best
        Its present model, and the best one so far by validation loss.
    records
        One per round (:class:`~edgealloc.models.training.federated.History`).
    """

    now: Point
    best: Point
    records: tuple[dict[str, Any], ...] = ()


def save(path: Path, fingerprint: str, standing: Standing) -> None:
    """Write where a run stands.

    The file is replaced in one step, so that an interrupted write leaves the old one.

    Parameters
    ----------
    path
        The file (numpy's ``.npz``); its folder is made.
    fingerprint
        Of the run (:func:`~edgealloc.models.training.federated.fingerprint`).
    standing
        Where it stands.
    """
    arrays: dict[str, Any] = {}
    for place, point in (("now", standing.now), ("best", standing.best)):
        arrays |= {f"{place}/state/{name}": value for name, value in point.state.items()}
        arrays |= {f"{place}/residual/{name}": value for name, value in point.residual.items()}
    meta = json.dumps({"fingerprint": fingerprint, "records": standing.records})
    buffer = BytesIO()
    np.savez(buffer, meta=np.array(meta), **arrays)
    make_folder(path.parent)
    write_file(buffer.getvalue(), path)


def load(path: Path, fingerprint: str) -> Standing | None:
    """Read the standing of the run with this fingerprint; None if there is no file.

    Parameters
    ----------
    path, fingerprint
        The file, and the run that it must belong to.

    Returns
    -------
    Standing or None
        None where there is no file.

    Raises
    ------
    ValueError
        If the file belongs to another run.
    """
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        meta = json.loads(str(file["meta"]))
        if meta["fingerprint"] != fingerprint:
            raise ValueError(f"{path}: belongs to a run with other options or data; remove it or name another")

        def point(place: str) -> Point:
            def part(kind: str) -> dict[str, WireArray]:
                prefix = f"{place}/{kind}/"
                return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}

            return Point(part("state"), part("residual"))

        return Standing(point("now"), point("best"), tuple(meta["records"]))
