"""Compiled kernels on disk, in files that are found by what was compiled.

numba's own cache notices a change of the file that a kernel is in, not of a kernel or constant that it takes from
another file; it stops where no folder can be written; a damaged index ends every later run; and two processes that
write different specialisations of one kernel at once can each end up with the other's code. Here the name of a
file is a digest of everything that goes into the code (:func:`fingerprint`, the argument types, the processor and
the versions), so that there is no index and nothing to go stale. A file holds a digest of its contents; one that
is damaged counts as absent.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import logging
import os
import pickle
import sys
import tempfile
import time
import types
import uuid
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching, compiler, serialize
from numba.core import config as numba_config
from numba.core.dispatcher import Dispatcher as NumbaDispatcher
from numba.core.runtime import nrt
from numba.misc import appdirs

from edgealloc.solvers.compiling.clock import loading

__all__ = ["KernelCache", "calls", "config", "fingerprint", "folder_for_writing", "folders"]

SUFFIX = ".kernel"
_KEEP_DAYS = 60  # a file that nobody has read for so long belongs to an old version, or to a machine that is gone
_DAY_S = 86400.0
_DIGEST = hashlib.sha256
_DIGEST_BYTES = 32

# numba has come with types of its own since 0.66, of a part of what it offers.
config: Any = numba_config
Cache: Any = caching._Cache
CompileResult: Any = compiler.CompileResult
AppDirs: Any = appdirs.AppDirs
Dispatcher: Any = NumbaDispatcher
dumps: Any = serialize.dumps
runtime: Any = nrt.rtsys

logger = logging.getLogger("edgealloc.solvers.compiling")


def folders() -> list[Path]:
    """Where compiled kernels are looked for, in order; new ones go to the first that can be written."""
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR) / "edgealloc"]
    beside = Path(__file__).resolve().parent / "__pycache__" / "kernels"
    own = Path(AppDirs(appname="edgealloc", appauthor=False).user_cache_dir) / "kernels"
    return [beside, own] if own.is_absolute() else [beside]  # a user without a home has a folder "~" of none


@functools.cache
def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be and tidied up; asked once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    _tidy(folder)
    return True


def folder_for_writing() -> Path | None:
    """The folder that new kernels go to, made if need be; None where none can be written."""
    return next((folder for folder in folders() if _writable(folder)), None)


def _tidy(folder: Path) -> None:
    """Delete what nobody has used for long, and what a killed process left half written."""
    now = time.time()
    try:
        paths = list(folder.iterdir())
    except OSError:  # a folder that we may write to and not list
        return
    for path in paths:
        limit = _KEEP_DAYS * _DAY_S if path.suffix == SUFFIX else _DAY_S if ".tmp-" in path.name else None
        with contextlib.suppress(OSError):
            if limit is not None and now - path.stat().st_mtime > limit:
                path.unlink()


def _write(path: Path, payload: bytes) -> None:
    """Write a file that appears whole or not at all."""
    draft = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        draft.write_bytes(_checksum(path, payload) + payload)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """The payload of a file; None where there is none, or not the one that was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    payload = data[_DIGEST_BYTES:]
    if data[:_DIGEST_BYTES] != _checksum(path, payload):
        return None
    with contextlib.suppress(OSError):  # whoever may not touch it does not delete it either
        if time.time() - path.stat().st_mtime > _DAY_S:
            os.utime(path)
    return payload


def _checksum(path: Path, payload: bytes) -> bytes:
    return _DIGEST(path.name.encode() + b"\n" + payload).digest()


class KernelCache(Cache):  # type: ignore[misc]
    """What a dispatcher of numba asks for compiled code and hands compiled code to."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    @property
    def cache_path(self) -> str | None:
        """The folder for new files, for numba's statistics."""
        folder = folder_for_writing()
        return None if folder is None else str(folder)

    def name(self, signature: Any, codegen: Any) -> str:
        """File name of a specialisation: the kernel's name for people, a digest for us."""
        function = self._dispatcher.py_func
        about = (
            fingerprint(self._dispatcher),
            str(signature),
            codegen.magic_tuple(),
            (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, sys.abiflags),
            (config.OPT, config.BOUNDSCHECK),
        )
        digest = _DIGEST(repr(about).encode()).hexdigest()[:32]
        return f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{digest}{SUFFIX}"

    def holds(self, signature: Any) -> bool:
        """Whether a file is there; it is read only when it is needed."""
        name = self.name(signature, self._dispatcher.targetctx.codegen())
        return any(
            os.path.isfile(folder / name) for folder in folders()
        )  # Path asks in vain where it may not look

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code for a signature, None where it has to be compiled."""
        with loading():
            return self._load(sig, target_context)

    def _load(self, sig: Any, target_context: Any) -> Any:
        # What loaded code calls by name. A whole refresh, which compiling does itself, imports all that numba can
        # compile: a second of processor time in every process.
        runtime.initialize(target_context)
        name = self.name(sig, target_context.codegen())
        for folder in folders():
            payload = _read(folder / name)
            if payload is None:
                continue
            try:
                result = CompileResult._rebuild(target_context, *pickle.loads(payload))
            except Exception:  # whatever is wrong with it, it can be compiled anew
                continue
            if tuple(result.signature.args) == tuple(sig):
                return result
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code where a folder can be written; the code in memory serves in any case."""
        folder = folder_for_writing()
        if folder is None or data.lifted or data.library.has_dynamic_globals:
            return
        try:
            _write(folder / self.name(sig, data.codegen), dumps(data._reduce()))
        except OSError as error:  # the disk is full, or the folder has gone
            _cannot_keep(str(error))

    def enable(self) -> None:
        """Nothing to do: the cache is always on."""

    def disable(self) -> None:
        """Nothing to do: the cache is always on."""

    def flush(self) -> None:
        """Nothing to do: a file is never out of date."""


@functools.cache
def _cannot_keep(why: str) -> None:
    logger.warning("edgealloc: compiled code cannot be kept (%s); NUMBA_CACHE_DIR names another folder", why)


def fingerprint(dispatcher: Any) -> str:
    """Digest of a kernel and of everything compiled into it: kernels it calls, constants, options.

    Raises
    ------
    TypeError
        When the kernel refers to something whose value cannot be told, such as a module of ours.
    """
    found, waiting = {}, [dispatcher]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            text, used = _piece(one)
            found[id(one)] = text
            waiting += used
    return _DIGEST("\n".join(found.values()).encode()).hexdigest()


def calls(dispatcher: Any) -> set[Any]:
    """The kernels that a kernel calls itself."""
    return {one for one in _piece(dispatcher)[1] if isinstance(one, Dispatcher)}


@functools.cache
def _piece(one: Any) -> tuple[str, tuple[Any, ...]]:
    """What a kernel or a plain function is by itself, and which others it uses."""
    function, options = (
        (one, "") if isinstance(one, types.FunctionType) else (one.py_func, repr(one.targetoptions))
    )
    used: list[Any] = []
    parts = [function.__module__, function.__qualname__, options]
    codes: list[types.CodeType] = [function.__code__]
    names: dict[str, Any] = {}
    for code in codes:
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
        first = 1 if _first_is_docstring(code) else 0
        constants = [_text(c, used) for c in code.co_consts[first:] if not isinstance(c, types.CodeType)]
        parts += [code.co_code.hex(), code.co_exceptiontable.hex(), *constants]
        parts += [str(code.co_argcount), *code.co_names, *code.co_varnames, *code.co_freevars]
        names |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    for value in (*names.values(), *cells, *(function.__defaults__ or ())):
        parts.append(_text(value, used))
    return _DIGEST("\n".join(parts).encode()).hexdigest(), tuple(used)


def _first_is_docstring(code: types.CodeType) -> bool:
    """Whether the first constant is a docstring, or the None in its place: words that no instruction loads."""
    if not code.co_consts or not isinstance(code.co_consts[0], str | None):
        return False
    steps = code.co_code  # an instruction and its argument, a byte each; dis would name them all first
    loads = [i for i in range(0, len(steps), 2) if steps[i] in dis.hasconst]
    return all(steps[i + 1] or (i and steps[i - 2] == dis.EXTENDED_ARG) for i in loads)


def _text(value: Any, used: list[Any]) -> str:
    """A value that is compiled in, as text that differs where it differs; what it calls is added to ``used``.

    Raises
    ------
    TypeError
        When there is no such text, as for a module of ours.
    """
    value = getattr(value, "dispatcher", value)  # a kernel that only kernels call
    if isinstance(value, Dispatcher) or (isinstance(value, types.FunctionType) and _ours(value.__module__)):
        used.append(value)
        return f"function {value.__name__}"
    if isinstance(value, tuple | frozenset):
        parts = [_text(item, used) for item in value]
        return f"{type(value).__name__}({', '.join(parts if isinstance(value, tuple) else sorted(parts))})"
    if isinstance(value, np.ndarray):
        return (
            f"array {value.dtype.str} {value.shape} {_DIGEST(np.ascontiguousarray(value).tobytes()).hexdigest()}"
        )
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, types.ModuleType) and not _ours(value.__name__):
        return f"module {value.__name__}"
    if callable(value) and not _ours(getattr(value, "__module__", None)):
        return f"callable {getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    raise TypeError(f"a kernel refers to {value!r}: import the kernel or the constant itself")


def _ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "edgealloc"
