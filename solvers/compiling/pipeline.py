"""numba's compiler with a memory for the types of operations.

For every ``+`` and ``[]`` numba tries dozens of templates anew, though a kernel has few kinds of operands: that is
a fifth of the time that a kernel takes to compile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.compiler import CompilerBase as NumbaCompiler
from numba.core.compiler import DefaultPassBuilder as NumbaPasses
from numba.core.compiler_machinery import register_pass as numba_register
from numba.core.typed_passes import NopythonTypeInference as NumbaInference
from numba.core.types.functions import BaseFunction as NumbaFunction

__all__ = ["Compiler"]

# numba has come with types of its own since 0.66, of a part of what it offers.
CompilerBase: Any = NumbaCompiler
DefaultPassBuilder: Any = NumbaPasses
NopythonTypeInference: Any = NumbaInference
BaseFunction: Any = NumbaFunction
register_pass: Any = numba_register

_found: dict[Any, Any] = {}  # (operation, argument types) -> signature


@contextmanager
def _remembering() -> Iterator[None]:
    """In which numba asks our memory before its templates. One thread compiles at a time: numba holds a lock."""
    resolve = BaseFunction.get_call_type

    def remembered(this: Any, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return resolve(this, context, args, kws)
        key = this, tuple(args)
        if key not in _found:
            _found[key] = resolve(this, context, args, kws)
        return _found[key]

    BaseFunction.get_call_type = remembered
    try:
        yield
    finally:
        BaseFunction.get_call_type = resolve


@register_pass(mutates_CFG=True, analysis_only=False)
class _Inference(NopythonTypeInference):  # type: ignore[misc]
    """numba's type inference, remembering."""

    _name = "edgealloc_type_inference"

    def run_pass(self, state: Any) -> bool:
        with _remembering():
            changed: bool = super().run_pass(state)
        return changed


class Compiler(CompilerBase):  # type: ignore[misc]
    """numba's usual passes with :class:`_Inference`."""

    def define_pipelines(self) -> list[Any]:
        """The passes, in their order."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [
            (_Inference if step is NopythonTypeInference else step, about) for step, about in manager.passes
        ]
        return [manager]
