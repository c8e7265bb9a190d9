"""The state of a run between two rounds, in one file, so that a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError
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
    InputError
        If the file is damaged, or belongs to another run.
    """  # noqa: DOC501 (_refused makes one)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(str(file["meta"]))
            owner, records = meta["fingerprint"], tuple(dict(record) for record in meta["records"])
            now, best = _point(file, "now"), _point(file, "best")
    except Exception as error:  # zip, numpy and JSON say it in many ways, and numpy advises to read pickles
        raise _refused(path, f"damaged ({type(error).__name__})", "a checkpoint as it was written") from error
    if owner != fingerprint:
        raise _refused(path, "of a run with other options, data or versions", "the checkpoint of this run")
    return Standing(now, best, records)


def _point(file: Mapping[str, WireArray], place: str) -> Point:
    def part(kind: str) -> dict[str, WireArray]:
        prefix = f"{place}/{kind}/"
        return {name.removeprefix(prefix): file[name] for name in file if name.startswith(prefix)}

    return Point(part("state"), part("residual"))


def _refused(path: Path, what: str, allowed: str) -> InputError:
    advice = f"{allowed}: remove the file to train from the start, or name another"
    return InputError(str(path), [Fault("checkpoint", "file", what, advice)])
