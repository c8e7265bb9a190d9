"""JSON files: strict reading, atomic writing.

What is refused, and why, is in docs/files.md.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgealloc.errors import Fault, InputError

__all__ = ["MAX_MB", "read_json", "write_json"]


MAX_MB = 64.0  # a file of more is refused unless its reader is told otherwise


def read_json(path: str | Path, max_mb: float = MAX_MB) -> dict[str, Any]:
    """Parse a JSON file that holds one object.

    Stricter than Python's parser: ``NaN`` and ``Infinity``, which are no JSON, and repeated keys, of which
    one would be lost silently, are refused. So are pipes and devices, which may never end, and files that are
    larger than ``max_mb`` megabytes (1e6 bytes).

    Raises
    ------
    InputError
        With one fault when the file cannot be read or is not such a file.
    """  # noqa: DOC501  (refuse makes one)
    allowed = "a file that holds one JSON object"

    def refuse(value: str) -> InputError:
        return InputError(str(path), [Fault("file", "content", value, allowed)])

    try:
        data = json.loads(_content(Path(path), max_mb), object_pairs_hook=_object, parse_constant=_no_constant)
    except OSError as error:
        raise InputError(str(path), [_path_fault(path, error, "a readable file")]) from None
    except RecursionError:
        raise refuse("nested too deeply") from None
    except ValueError as error:  # malformed JSON, wrong encoding, absurdly long integers
        raise refuse(f"not JSON ({error})") from None
    if not isinstance(data, dict):
        raise refuse(f"a JSON {type(data).__name__}")
    return data


def _content(path: Path, max_mb: float) -> bytes:
    mode = path.stat().st_mode  # before it is opened: opening a pipe may wait for ever
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(
            str(path), [Fault("file", "path", f"{str(path)!r} (a pipe or a device)", "a regular file")]
        )
    with path.open("rb") as stream:
        content = stream.read(int(max_mb * 1e6) + 1)
    if len(content) > max_mb * 1e6:
        allowed = f"at most {max_mb:g} MB (verify: --max-mb for more)"
        raise InputError(str(path), [Fault("file", "size", f"more than {max_mb:g} MB", allowed)])
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"repeated keys {', '.join(repeated)}")
    return result


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")


def write_json(data: Mapping[str, Any], path: str | Path) -> Path:
    """Write an object with one line per top-level key and per device; the file appears whole or not at all."""
    encode, lines = json.JSONEncoder(allow_nan=False).encode, []
    for key, value in data.items():
        rows = ",\n  ".join(map(encode, value)) if key == "devices" else ""
        lines.append(f" {encode(key)}: " + (f"[\n  {rows}\n ]" if rows else encode(value)))
    return _write_atomically("{\n" + ",\n".join(lines) + "\n}\n", Path(path))


def _write_atomically(text: str, path: Path) -> Path:
    """Write beside the target, flush to disk, then rename: readers see the old file or the new, whole.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    target = path.resolve()  # write through a symbolic link instead of replacing it
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_text(text)  # a pipe or a terminal such as /dev/stdout cannot be renamed onto
        return path
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except OSError as error:
        allowed = "a file in a folder that exists and can be written"
        raise InputError(str(path), [_path_fault(path, error, allowed)]) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def _path_fault(path: str | Path, error: OSError, allowed: str) -> Fault:
    return Fault("file", "path", f"{str(path)!r} ({error.strerror or error})", allowed)
