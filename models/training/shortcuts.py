"""What of a transformer's forward pass can be left out, as context managers that change the model for a while.

:class:`edgealloc.models.training.cache.Feed` decides which of them are sound for a model, and proves it. No
attention or LoRA layer of our own: the model's modules run as they are, on less.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgealloc.models.training.backbone import AdapterHandle

_LAYER = re.compile(r"^(?P<stack>.*?)\.(?P<index>\d+)\.")
_FIRST_QUERY = "edgealloc-first-query"  # name in the registry of attention functions


@dataclass(frozen=True, slots=True)
class Stack:
    """The transformer layers of a model, and the index of the first one that is adapted."""

    layers: nn.ModuleList
    first: int

    @classmethod
    def of(cls, handle: AdapterHandle) -> Stack | None:
        """Find the stack that holds all adapted layers; None if they do not share one."""
        found = [_LAYER.match(name) for name in handle.layers]
        stacks = {match["stack"] for match in found if match}
        if len(stacks) != 1 or None in found:
            return None
        layers = handle.model.get_submodule(stacks.pop())
        return cls(layers, min(int(match["index"]) for match in found if match))

    @property
    def entry(self) -> nn.Module:
        """The first adapted layer."""
        return self.layers[self.first]


@contextmanager
def replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give one module another ``forward``."""
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


@contextmanager
def before(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, args, kwargs)`` before a module; it may return other arguments."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def after(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """Call ``hook(module, args, output)`` after a module; it may return another output."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states that a layer is called with."""
    hidden = args[0] if args else kwargs["hidden_states"]
    assert isinstance(hidden, Tensor)
    return hidden


def source_of(model: nn.Module, stack: Stack, run: Callable[[], object]) -> nn.Module | None:
    """Find the outermost module whose output is what the lowest layer gets (the embeddings), by running the model.

    Everything up to there is needless where the lower layers are passed over. None if no module is.
    """
    outputs: list[tuple[nn.Module, object]] = []
    inputs: list[Tensor] = []
    inside = set(stack.layers.modules())
    with ExitStack() as watching:
        for module in model.modules():
            if module not in inside:
                watching.enter_context(after(module, lambda m, args, out: outputs.append((m, out))))
        watching.enter_context(
            before(stack.layers[0], lambda m, args, kwargs: inputs.append(first_argument(args, kwargs)))
        )
        run()
    # An outer module returns after the inner one that made its output.
    return next((module for module, out in reversed(outputs) if out is inputs[0]), None)


@contextmanager
def first_token_only(layer: nn.Module) -> Iterator[None]:
    """Do the last layer's work for the first token only, but for keys and values (BERT family).

    The first token's query attends to all keys; what other positions would get is not computed, and stands in the
    output as a copy of the first token's, which a classifier from the first token never reads.

    Raises
    ------
    AttributeError
        If the layer is not built like BERT's.
    ValueError
        If it looks at earlier tokens only.
    """
    attention = layer.get_submodule("attention.self")
    if getattr(attention, "is_causal", False):
        raise ValueError("causal attention: the first token sees itself only")
    with ExitStack() as stack:
        stack.enter_context(before(layer.get_submodule("attention.output"), _cut))
        query = layer.get_submodule("attention.self.query")
        whole: list[Tensor] = []

        def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            whole[:] = [args[0]]
            return _cut(module, args, kwargs)

        def spread(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            return out.expand(-1, whole.pop().shape[1], -1)

        stack.enter_context(before(query, cut))
        stack.enter_context(after(query, spread))
        stack.enter_context(_first_query(attention))
        yield


def _cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Cut [B, T, d] arguments to the first token, [B, 1, d]."""
    return tuple(a[:, :1] if isinstance(a, Tensor) and a.ndim == 3 else a for a in args), kwargs


@contextmanager
def _first_query(attention: Any) -> Iterator[None]:
    """Let one module's attention compute one query instead of T equal ones, where transformers has a registry."""
    config: Any = getattr(attention, "config", None)
    try:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        inner = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    except (ImportError, KeyError, AttributeError):
        yield  # T equal queries: slower, and the same
        return

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        cut = None if mask is None else mask[..., :1, :]
        out, weights = inner(module, query[:, :, :1], key, value, cut, **options)
        return out.expand(-1, query.shape[2], -1, -1), weights

    ALL_ATTENTION_FUNCTIONS.register(_FIRST_QUERY, attend)
    attention.config = copy.copy(config)
    attention.config._attn_implementation = _FIRST_QUERY
    try:
        yield
    finally:
        attention.config = config
