"""Cells on disk: a row counts only if this user's edgealloc wrote it, for that cell, and nobody changed it since.

A row holds what a solver claimed, and nothing in it could be checked again without the allocation and a proof. So
each carries a digest with a key, which is made once per user and never leaves the machine: whoever edits a row, or
brings one along, cannot make the digest. Such cells are solved again.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgealloc.errors import InputError
from edgealloc.files.disk import read_json, write_json

__all__ = ["read_row", "user_key", "write_row"]

_SEAL = "seal"  # the row's key for its digest
_BYTES = 32


def write_row(row: Mapping[str, Any], path: Path) -> None:
    """Write a row, sealed for its file name."""
    write_json({**row, _SEAL: _digest(row, path.name)}, path)


def read_row(path: Path) -> dict[str, Any] | None:
    """The row of a file, without its seal; None where there is none, or not the one that was written there."""
    try:
        row = read_json(path)
    except InputError:
        return None
    seal = row.pop(_SEAL, None)
    own = isinstance(seal, str) and hmac.compare_digest(
        seal.encode(errors="replace"), _digest(row, path.name).encode()
    )
    return row if own else None


def _digest(row: Mapping[str, Any], name: str) -> str:
    text = json.dumps([name, row], sort_keys=True)
    return hmac.new(user_key(), text.encode(), "sha256").hexdigest()


@cache
def user_key() -> bytes:
    """The user's key, made where there is none; one for this process alone where none can be kept."""
    path = _place()
    if not path.is_absolute():  # a user without a home has a folder "~" of none
        return secrets.token_bytes(_BYTES)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
        try:
            draft.touch(mode=0o600)
            draft.write_bytes(secrets.token_bytes(_BYTES))
            os.link(draft, path)  # whole, and only if nobody else was first
        except OSError:
            if not path.exists():  # a file system without links
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        key = path.read_bytes()
        if len(key) == _BYTES:
            return key
    return secrets.token_bytes(_BYTES)


def _place() -> Path:
    from numba.misc import appdirs

    place: Any = appdirs.AppDirs
    return Path(place(appname="edgealloc", appauthor=False).user_data_dir) / "bench.key"
