"""Certificates on disk: read with every fault named, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgealloc.certificate.form import FORMAT, canonical, seal
from edgealloc.certificate.prices import Certificate, PriceReader
from edgealloc.certificate.subcarriers import SubcarrierCertificate, SubcarrierReader
from edgealloc.files.disk import read_json, write_json

__all__ = ["AnyCertificate", "certificate_from_dict", "load_certificate", "save_certificate"]


_CONTENT = {
    "prices": ("pieces", "nodes", "rounds"),
    "common-rate": ("pieces", "cap", "touch"),
    "subcarriers": ("nodes",),
}


AnyCertificate = Certificate | SubcarrierCertificate


def save_certificate(certificate: AnyCertificate, path: str | Path) -> Path:
    """Write a certificate file; it appears whole or not at all."""
    return write_json(certificate.to_file(), path)


def load_certificate(path: str | Path) -> AnyCertificate:
    """Read a certificate file.

    Raises
    ------
    InputError
        When it cannot be read or is not a sound certificate; lists what is wrong.
    """
    return certificate_from_dict(read_json(path), str(path))


def certificate_from_dict(data: Mapping[str, Any], subject: str = "certificate") -> AnyCertificate:
    """The certificate of a JSON object; see :func:`load_certificate`."""
    reader = PriceReader(subject)
    reader.same(data.get("format"), FORMAT, "format")
    try:
        size = len(canonical(data))
        reader.same(data.get("sha256"), seal(data), "sha256")
    except RecursionError:
        reader.fault("content", "nested too deeply", "a certificate")
        reader.finish()
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in _CONTENT:
        reader.fault("kind", kind, " or ".join(_CONTENT))
        reader.finish()
    name = data.get("instance")
    if not isinstance(name, str):
        reader.fault("instance", name, "a name")
    known = {"format", "sha256", "kind", "instance", "lower_bound", *_CONTENT[str(kind)]}
    for key in sorted(set(data) - {"constraints"} ^ known):
        reader.fault(key, "(missing)" if key in known else data[key], "given" if key in known else "no such key")
    reader.finish()
    rows = reader.constraints(data)
    if kind == "subcarriers":
        return replace(SubcarrierReader(subject).certificate(data), constraints=rows, size=size)
    common = kind == "common-rate"
    certificate = Certificate(
        instance_name=str(name),
        kind=str(kind),
        lower_bound=reader.bound(data["lower_bound"]),
        pieces=reader.pieces(data["pieces"]),
        nodes=() if common else reader.nodes(data["nodes"]),
        rounds=() if common else reader.rounds(data["rounds"]),
        cap=None if not common or data["cap"] is None else reader.number(data["cap"], "cap"),
        touch=reader.number(data["touch"], "touch") if common else None,
        constraints=rows,
        size=size,
    )
    reader.finish()
    return certificate
