"""The certificate of a plan of a whole run: intervals of rounds, each with a problem of one round and its proof.

Whether the intervals cover all numbers of rounds, and every problem is easier than the rounds of its interval, is
decided by the checker (:mod:`edgealloc.verify.run`); here is only the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgealloc.certificate.file import AnyCertificate, certificate_from_dict
from edgealloc.certificate.form import Reader, seal
from edgealloc.errors import InputError
from edgealloc.files.disk import read_json, write_json
from edgealloc.units import FloatArray

__all__ = [
    "FORMAT",
    "CurveTerms",
    "NeededTerms",
    "RunCertificate",
    "RunPiece",
    "RunWall",
    "load_run_certificate",
    "run_certificate_from_dict",
]

FORMAT = "edgealloc-run-certificate/1"
_PIECE = {"first", "last", "latency_s", "energy_j", "certificate"}
_CONTENT = {"format", "instance", "lower_bound", "sha256"}


@dataclass(frozen=True, slots=True)
class CurveTerms:
    """Terms of one problem under a learning curve.

    Parameters
    ----------
    half, steepness
        Its underfitting term ``1 / (1 + (s / half)^steepness)``.
    loss_range, lipschitz
        C and eta of its overfitting term.
    """

    half: float
    steepness: float
    loss_range: float
    lipschitz: float


@dataclass(frozen=True, slots=True)
class NeededTerms:
    """Terms of one problem of rounds that are needed.

    Parameters
    ----------
    underfit_weight
        A of its underfitting term ``A (1 / s - 1)``.
    loss_range
        C of its constant term ``C / sqrt(n)`` at n samples.
    """

    underfit_weight: float
    loss_range: float


@dataclass(frozen=True, slots=True, eq=False)
class RunPiece:
    """Runs of ``first`` to ``last`` rounds: no round of theirs is better than what one problem allows.

    Parameters
    ----------
    first, last
        Numbers of rounds.
    latency_s, energy_j
        Budgets of that problem: the deadline in s, and what each device may spend in J. Shape [K].
    terms
        Its objective.
    certificate
        Proof of its lower bound, or that it is infeasible.
    """

    first: int
    last: int
    latency_s: float
    energy_j: FloatArray
    terms: CurveTerms | NeededTerms
    certificate: AnyCertificate

    def to_file(self) -> dict[str, Any]:
        """The JSON object."""
        own = {"first": self.first, "last": self.last, "latency_s": self.latency_s}
        own |= {"energy_j": self.energy_j.tolist(), **asdict(self.terms)}
        return own | {"certificate": self.certificate.to_file()}


@dataclass(frozen=True, slots=True, eq=False)
class RunWall:
    """No run within so much time and so large a share of the energy budgets reaches the target.

    Parameters
    ----------
    time_s, share
        Time in s of all rounds together, and the share of every device's total.
    lower_bound
        A loss, above the target, below which no such run is; ``inf`` (null in the file) where none is feasible.
    pieces
        Intervals that cover all numbers of rounds.
    """

    time_s: float
    share: float
    lower_bound: float
    pieces: tuple[RunPiece, ...]

    def to_file(self) -> dict[str, Any]:
        """The JSON object."""
        own = {"time_s": self.time_s, "share": self.share, "lower_bound": _or_none(self.lower_bound)}
        return own | {"pieces": [piece.to_file() for piece in self.pieces]}


@dataclass(frozen=True, slots=True, eq=False)
class RunCertificate:
    """Proof that no run within the budgets of a plan has a predicted loss below ``lower_bound``.

    Of a weighted sum: that no run which reaches the target costs less.

    Parameters
    ----------
    instance_name, lower_bound
        What is proved; the bound is ``inf`` (null in the file) where there is no such run.
    pieces
        Intervals that cover all numbers of rounds; empty for a weighted sum.
    walls
        Of a weighted sum: budgets that are not enough. Empty for anything else.
    """

    instance_name: str
    lower_bound: float
    pieces: tuple[RunPiece, ...]
    walls: tuple[RunWall, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """Sizes of all inner certificates, as they were read; 0 of those that were not."""
        own = (*self.pieces, *(piece for wall in self.walls for piece in wall.pieces))
        return [piece.certificate.size for piece in own]

    def to_file(self) -> dict[str, Any]:
        """The JSON object, sealed."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "instance": self.instance_name,
            "lower_bound": _or_none(self.lower_bound),
        }
        if self.walls:
            data["walls"] = [wall.to_file() for wall in self.walls]
        else:
            data["pieces"] = [piece.to_file() for piece in self.pieces]
        return data | {"sha256": seal(data)}

    def save(self, path: str | Path) -> Path:
        """Write the certificate; the file appears whole or not at all."""
        return write_json(self.to_file(), path)


def load_run_certificate(path: str | Path) -> RunCertificate:
    """Read a certificate of a plan.

    Raises
    ------
    InputError
        When it cannot be read or is not a sound certificate; lists what is wrong.
    """
    return run_certificate_from_dict(read_json(path), str(path))


def run_certificate_from_dict(data: Mapping[str, Any], subject: str = "certificate") -> RunCertificate:
    """The certificate of a JSON object; see :func:`load_run_certificate`."""
    reader = Reader(subject)
    reader.same(data.get("format"), FORMAT, "format")
    reader.finish()
    inside = "walls" if "walls" in data else "pieces"
    content = reader.part(dict(data), "content", _CONTENT | {inside})
    try:
        reader.same(content["sha256"], seal(content), "sha256")
    except RecursionError:
        reader.fault("content", "nested too deeply", "a certificate")
        reader.finish()
    if not isinstance(content["instance"], str):
        reader.fault("instance", content["instance"], "a name")
    rows = [(row, f"{inside}[{i}]") for i, row in enumerate(reader.listed(content[inside], inside))]
    bound = reader.bound(content["lower_bound"])
    reader.finish()
    if inside == "walls":
        walls = tuple(_wall(reader, row, key) for row, key in rows)
        return RunCertificate(content["instance"], bound, (), walls)
    return RunCertificate(content["instance"], bound, tuple(_piece(reader, row, key) for row, key in rows))


def _or_none(bound: float) -> float | None:
    return None if bound == float("inf") else bound


def _wall(reader: Reader, row: Any, key: str) -> RunWall:
    part = reader.part(row, key, {"time_s", "share", "lower_bound", "pieces"})
    time, share = (reader.number(part[name], f"{key}.{name}") for name in ("time_s", "share"))
    bound = reader.bound(part["lower_bound"])
    rows = reader.listed(part["pieces"], f"{key}.pieces")
    reader.finish()
    pieces = tuple(_piece(reader, inner, f"{key}.pieces[{i}]") for i, inner in enumerate(rows))
    return RunWall(time, share, bound, pieces)


def _piece(reader: Reader, row: Any, key: str) -> RunPiece:
    kind: Any = NeededTerms if isinstance(row, dict) and "underfit_weight" in row else CurveTerms
    names = [f.name for f in fields(kind)]
    part = reader.part(row, key, _PIECE | set(names))
    energy = part["energy_j"]
    numbers = {name: reader.number(part[name], f"{key}.{name}") for name in names}
    latency = reader.number(part["latency_s"], f"{key}.latency_s")
    joules = reader.floats(energy, f"{key}.energy_j", len(energy) if isinstance(energy, list) else 0)
    first, last = (reader.whole(part[name], f"{key}.{name}", 1) for name in ("first", "last"))
    reader.finish()
    if not isinstance(part["certificate"], dict):
        reader.fault(f"{key}.certificate", part["certificate"], "a certificate")
        reader.finish()
    try:
        certificate = certificate_from_dict(part["certificate"], f"{reader.subject}, {key}")
    except InputError as error:
        reader.faults += error.faults
        reader.finish()
        raise
    return RunPiece(first, last, latency, joules, kind(**numbers), certificate)
