"""The certificate of a plan of a whole run: intervals of rounds, each with a problem of one round and its proof.

Whether the intervals cover all numbers of rounds, and every problem is easier than the rounds of its interval, is
decided by the checker (:mod:`edgealloc.verify.run`); here is only the form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgealloc.certificate.file import AnyCertificate, certificate_from_dict
from edgealloc.certificate.form import Reader, seal
from edgealloc.errors import InputError
from edgealloc.files.disk import read_json, write_json
from edgealloc.units import FloatArray

__all__ = ["FORMAT", "RunCertificate", "RunPiece", "load_run_certificate", "run_certificate_from_dict"]

FORMAT = "edgealloc-run-certificate/1"
_PIECE = ("first", "last", "latency_s", "energy_j", "half", "steepness", "loss_range", "lipschitz", "certificate")


@dataclass(frozen=True, slots=True, eq=False)
class RunPiece:
    """Runs of ``first`` to ``last`` rounds: no round of theirs is better than what one problem allows.

    Parameters
    ----------
    first, last
        Numbers of rounds.
    latency_s, energy_j
        Budgets of that problem: the deadline in s, and what each device may spend in J. Shape [K].
    half, steepness
        Its underfitting term ``1 / (1 + (s / half)^steepness)``.
    loss_range, lipschitz
        C and eta of its overfitting term.
    certificate
        Proof of its lower bound, or that it is infeasible.
    """

    first: int
    last: int
    latency_s: float
    energy_j: FloatArray
    half: float
    steepness: float
    loss_range: float
    lipschitz: float
    certificate: AnyCertificate


@dataclass(frozen=True, slots=True, eq=False)
class RunCertificate:
    """Proof that no run within the budgets of a plan has a predicted loss below ``lower_bound``.

    Parameters
    ----------
    instance_name, lower_bound
        What is proved; the bound in nats is ``inf`` (null in the file) where no run is feasible.
    pieces
        Intervals that cover all numbers of rounds.
    """

    instance_name: str
    lower_bound: float
    pieces: tuple[RunPiece, ...]

    def to_file(self) -> dict[str, Any]:
        """The JSON object, sealed."""
        pieces = []
        for piece in self.pieces:
            row = {key: getattr(piece, key) for key in _PIECE}
            pieces.append(row | {"energy_j": piece.energy_j.tolist(), "certificate": piece.certificate.to_file()})
        bound = None if self.lower_bound == float("inf") else self.lower_bound
        data = {"format": FORMAT, "instance": self.instance_name, "lower_bound": bound, "pieces": pieces}
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
    content = reader.part(dict(data), "content", {"format", "instance", "lower_bound", "pieces", "sha256"})
    try:
        reader.same(content["sha256"], seal(content), "sha256")
    except RecursionError:
        reader.fault("content", "nested too deeply", "a certificate")
        reader.finish()
    if not isinstance(content["instance"], str):
        reader.fault("instance", content["instance"], "a name")
    pieces = [
        _piece(reader, row, f"pieces[{i}]") for i, row in enumerate(reader.listed(content["pieces"], "pieces"))
    ]
    bound = reader.bound(content["lower_bound"])
    reader.finish()
    return RunCertificate(content["instance"], bound, tuple(pieces))


def _piece(reader: Reader, row: Any, key: str) -> RunPiece:
    part = reader.part(row, key, set(_PIECE))
    energy = part["energy_j"]
    numbers = {name: reader.number(part[name], f"{key}.{name}") for name in _PIECE[4:8]}
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
    return RunPiece(first, last, latency, joules, **numbers, certificate=certificate)
