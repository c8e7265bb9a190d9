"""Files: strict reading, atomic writing.

What is refused, and why, is in docs/files.md.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgealloc.errors import Fault, InputError, printable, shown

__all__ = [
    "MAX_MB",
    "STDIN",
    "folder_fault",
    "make_folder",
    "output_fault",
    "read_file",
    "read_json",
    "same_file",
    "write_file",
    "write_json",
]

_WRITABLE = "a file in a folder that exists and can be written"

STDIN = Path("/dev/stdin")  # what a command line calls "-"
MAX_MB = 64.0  # a file of more is refused unless its reader is told otherwise


def read_json(path: str | Path, max_mb: float = MAX_MB) -> dict[str, Any]:
    """Parse a JSON file that holds one object.

    Stricter than Python's parser: ``NaN`` and ``Infinity``, which are no JSON, and repeated keys, of which
    one would be lost silently, are refused, and so is what :func:`read_file` refuses.

    Raises
    ------
    InputError
        With one fault when the file cannot be read or is not such a file.
    """  # noqa: DOC501  (refuse makes one)
    allowed = "a file that holds one JSON object"

    def refuse(value: str) -> InputError:
        return InputError(str(path), [Fault("file", "content", value, allowed)])

    content = read_file(path, max_mb)
    try:
        data = json.loads(content, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise refuse("nested too deeply") from None
    except ValueError as error:  # malformed JSON, wrong encoding, absurdly long integers
        raise refuse(f"not JSON ({error})") from None
    if not isinstance(data, dict):
        raise refuse(f"a JSON {type(data).__name__}")
    return data


def read_file(path: str | Path, max_mb: float = MAX_MB) -> bytes:
    """The content of a file; pipes and devices, which may never end, are refused, but for standard input.

    Parameters
    ----------
    path
        The file.
    max_mb
        A larger one, in megabytes (1e6 bytes), is refused.

    Returns
    -------
    bytes
        All of it.

    Raises
    ------
    InputError
        When it cannot be read, or ``max_mb`` is no number > 0.
    """
    if not max_mb > 0:
        raise InputError("options", [Fault("options", "max_mb", f"{max_mb}", "a number > 0")])
    try:
        if Path(path) == STDIN:
            return _from_stdin(max_mb)
        return _content(Path(path), max_mb)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a NUL in the path
        raise InputError(str(path), [_path_fault(path, error, "a readable file")]) from None


def _from_stdin(max_mb: float) -> bytes:
    """All of standard input, which may be a pipe: whoever asks for it says when it ends."""  # noqa: DOC501
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:  # closed, or a stream of somebody's own
        raise OSError(errno.EBADF, "standard input cannot be read")
    content = bytes(stream.read(int(max_mb * 1e6) + 1))
    if len(content) > max_mb * 1e6:
        raise _too_large(STDIN, max_mb)
    return content


def _too_large(path: Path, max_mb: float) -> InputError:
    allowed = f"at most {max_mb:g} MB (verify: --max-mb for more)"
    return InputError(str(path), [Fault("file", "size", f"more than {max_mb:g} MB", allowed)])


def _content(path: Path, max_mb: float) -> bytes:
    mode = path.stat().st_mode  # before it is opened: opening a pipe may wait for ever
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(
            str(path), [Fault("file", "path", f"{str(path)!r} (a pipe or a device)", "a regular file")]
        )
    with path.open("rb") as stream:
        expected = max(os.fstat(stream.fileno()).st_size, 1_000_000)  # those in /proc have no size
        content = stream.read(int(min(max_mb * 1e6, expected)) + 1)
    if len(content) > max_mb * 1e6:
        raise _too_large(path, max_mb)
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        repeated = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"repeated keys {', '.join(repeated)}")
    return result


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")


def write_json(data: Mapping[str, Any], path: str | Path) -> Path:
    """Write an object with one line per top-level key and per device; the file appears whole or not at all."""
    encode, lines = json.JSONEncoder(allow_nan=False).encode, []
    for key, value in data.items():
        rows = ",\n  ".join(map(encode, value)) if key == "devices" and isinstance(value, list) else ""
        lines.append(f" {encode(key)}: " + (f"[\n  {rows}\n ]" if rows else encode(value)))
    return write_file("{\n" + ",\n".join(lines) + "\n}\n", path)


def write_file(content: str | bytes, path: str | Path) -> Path:
    """Write a file that appears whole or not at all: every file that edgealloc leaves goes through here.

    It is written beside the target, flushed to disk, then renamed: readers see the old file or the new, whole.
    Links are followed; a file that was there keeps its permissions and, where we may, its owner. A pipe or a
    device such as ``/dev/stdout`` is written directly.

    Parameters
    ----------
    content
        Text, which is written as UTF-8 with the line ends that it has, or bytes.
    path
        Where to; an existing file is replaced.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    try:
        path = Path(path)
    except TypeError:
        raise InputError("arguments", [Fault("arguments", "path", shown(path), _WRITABLE)]) from None
    data = content.encode() if isinstance(content, str) else content
    try:
        kind = _mode(path)
        if kind is not None and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            with path.open("wb", buffering=0) as device:  # cannot be renamed onto
                _all(device, data)
        else:
            _replace(path.resolve(), data)  # writes through a symbolic link instead of replacing it
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; a NUL in the path
        raise InputError(str(path), [_path_fault(path, error, _WRITABLE)]) from None
    return path


def _all(stream: io.RawIOBase, data: bytes) -> None:
    """Write all of it: a device may take a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def _replace(target: Path, data: bytes) -> None:
    old = target.stat() if target.exists() else None
    if old is not None and not os.access(target, os.W_OK):  # renaming would not ask
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = target.with_name(f".edgealloc-{uuid.uuid4().hex[:12]}.tmp")
    try:
        mode = 0o666 if old is None else 0o600  # nobody else may read it before it has its own permissions
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            if old is not None:
                with suppress(OSError, AttributeError):  # somebody else's file, or a system without owners
                    os.fchown(stream.fileno(), old.st_uid, old.st_gid)
                os.chmod(temporary, stat.S_IMODE(old.st_mode))
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it, unless it is there.

    Raises
    ------
    InputError
        When it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(str(path), [_path_fault(path, error, "a folder that can be made")]) from None
    return Path(path)


def output_fault(path: Path) -> str | None:
    """Why a file cannot be written, asked before the work that leads to it; None where nothing speaks against it.

    Folders that are missing count as a fault of files. What only writing can show, as a full disk, is not seen.
    """
    try:
        kind = _mode(path)
        folder = path.resolve().parent
        if kind is not None and stat.S_ISDIR(kind):
            return f"{printable(repr(str(path)))} is a folder"
        if kind is not None and not os.access(path, os.W_OK):
            return f"{printable(repr(str(path)))} may not be written"
        if not folder.is_dir():
            return f"the folder {printable(repr(str(path.parent)))} does not exist"
        if (kind is None or stat.S_ISREG(kind)) and not os.access(folder, os.W_OK | os.X_OK):
            return f"the folder {printable(repr(str(path.parent)))} may not be written"
    except (OSError, RuntimeError, ValueError) as error:
        return f"{printable(repr(str(path)))}: {getattr(error, 'strerror', None) or error}"
    return None


def folder_fault(path: Path) -> str | None:
    """Why a folder for outputs cannot be made or written to; None where nothing speaks against it."""
    try:
        place = path.resolve()
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return f"{printable(repr(str(place)))} is no folder"
        if not os.access(place, os.W_OK | os.X_OK):
            return f"the folder {printable(repr(str(place)))} may not be written"
    except (OSError, RuntimeError, ValueError) as error:
        return f"{printable(repr(str(path)))}: {getattr(error, 'strerror', None) or error}"
    return None


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file: by spelling, by links of either kind, existing or not.

    Pipes and devices never count: nothing in them is lost.
    """
    try:
        modes = [_mode(path) for path in (one, other)]
        if any(mode is not None and not stat.S_ISREG(mode) for mode in modes):
            return False
        if None not in modes and one.samefile(other):
            return True
        return one.resolve() == other.resolve()
    except (OSError, RuntimeError, ValueError):
        return one.absolute() == other.absolute()


def _mode(path: Path) -> int | None:
    """The file's mode, links followed; None where there is none."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _path_fault(path: str | Path, error: Exception, allowed: str) -> Fault:
    return Fault("file", "path", f"{str(path)!r} ({getattr(error, 'strerror', None) or error})", allowed)
