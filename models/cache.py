"""The fast path: everything below the first adapted layer is computed once per example, not once per step.

Below the first adapted layer nothing trains and (in eval mode) nothing is random, so its output is a constant of
the example. :class:`Feed` computes it once, then lets the model run with the lower layers passed over. Where the
model classifies from its first token, the last layer's work after attention is done for that token only. Both
shortcuts are switched on only after they reproduced the plain model's logits.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgealloc.models.data import Examples, IntArray
from edgealloc.models.lora import AdapterHandle

log = logging.getLogger(__name__)

_LENGTH_NOISE = 0.5  # of an example's length, when batches are formed
_LAYER = re.compile(r"^(?P<stack>.*?)\.(?P<index>\d+)\.")


class _Reached(Exception):
    """Ends a forward pass at the first adapted layer: what follows is not needed to fill the cache."""


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


@contextmanager
def _instance_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


@contextmanager
def _hook(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden = args[0] if args else kwargs["hidden_states"]
    assert isinstance(hidden, Tensor)
    return hidden


def _keep_first_token(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Cut [B, T, d] arguments to the first token, [B, 1, d]."""
    return tuple(a[:, :1] if isinstance(a, Tensor) and a.ndim == 3 else a for a in args), kwargs


class Feed:
    """Feeds examples to a model, through the cache where that is sound.

    Parameters
    ----------
    handle
        The model with its adapter.
    examples
        All examples that will be asked for, by index.
    fast
        False forces the plain path (for comparison).
    device
        Torch device of model and tensors.
    tolerance
        Largest difference of logits, relative to their size, at which a shortcut counts as the same function.
    """

    def __init__(
        self,
        handle: AdapterHandle,
        examples: Examples,
        *,
        fast: bool = True,
        device: str = "cpu",
        tolerance: float = 1e-5,
    ) -> None:
        self.model = handle.model.to(device)
        self.labels = torch.from_numpy(np.array(examples.labels)).to(device)
        self._inputs = {name: torch.from_numpy(np.array(v)).to(device) for name, v in examples.inputs.items()}
        for name, value in self._inputs.items():
            if value.is_floating_point():
                self._inputs[name] = value.float()
        mask = self._inputs.get("attention_mask")
        self._lengths = None if mask is None else mask.sum(1)
        self._flat: Tensor | None = None
        self._starts: Tensor | None = None
        self._current: Tensor | None = None
        self.first_token_only = False
        self._stack = Stack.of(handle) if fast else None
        if self._stack is not None:
            self._fill()
            self._prove(tolerance)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cached(self) -> bool:
        """Whether the lower layers are passed over."""
        return self._flat is not None

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """Gather inputs, cut to the longest example of the batch."""
        batch = {name: value[index] for name, value in self._inputs.items()}
        if self._lengths is not None:
            longest = int(self._lengths[index].max())
            padded = self._inputs["attention_mask"].shape[1]
            batch = {
                name: v[:, :longest] if v.ndim > 1 and v.shape[1] == padded else v for name, v in batch.items()
            }
        return batch

    def by_length(self, index: IntArray, batch_size: int) -> Iterator[Tensor]:
        """Yield batches of similar length, for evaluation where order does not matter."""
        order = torch.from_numpy(np.asarray(index, dtype=np.int64)).to(self.labels.device)
        if self._lengths is not None:
            order = order[torch.argsort(self._lengths[order], stable=True)]
        yield from torch.split(order, batch_size)

    def shuffled(self, index: IntArray, batch_size: int, rng: np.random.Generator) -> list[Tensor]:
        """Return batches for one epoch of training, in random order, each of examples of similar length.

        Noise on the lengths keeps the batches mixed; with it, padding still falls to about half.
        """
        lengths = np.zeros(len(index)) if self._lengths is None else self._lengths.cpu().numpy()[index]
        noise = rng.random(len(index)) * (1.0 + _LENGTH_NOISE * lengths)
        order = torch.from_numpy(index[np.argsort(lengths + noise, kind="stable")]).to(self.labels.device)
        batches = list(torch.split(order, batch_size))
        return [batches[i] for i in rng.permutation(len(batches))]

    def logits(self, index: Tensor) -> Tensor:
        """Return logits [B, classes] of the examples with these indices."""
        batch = self.batch(index)
        if self._flat is None or self._starts is None:
            return self._forward(batch)
        width = batch["attention_mask"].shape[1] if self._lengths is not None else len(self._flat) // len(self)
        # Past an example's end the gather reads its neighbour's rows: those positions are masked anyway.
        rows = self._starts[index, None] + torch.arange(width, device=index.device)
        self._current = self._flat[rows.clamp_(max=len(self._flat) - 1)]
        return self._forward(batch)

    def _forward(self, batch: dict[str, Tensor]) -> Tensor:
        out = self.model(**batch).logits
        assert isinstance(out, Tensor)
        return out

    @contextmanager
    def shortcuts(self) -> Iterator[None]:
        """Install the shortcuts on the model; every call of ``logits`` belongs inside."""
        with ExitStack() as stack:
            if self._stack is not None and self.cached:
                for layer in self._stack.layers[: self._stack.first]:
                    stack.enter_context(_instance_forward(layer, self._pass_over))
                stack.enter_context(_hook(self._stack.layers[self._stack.first], self._substitute))
            if self._stack is not None and self.first_token_only:
                stack.enter_context(_hook(self._after_attention(), _keep_first_token))
            yield

    def _pass_over(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._tuples else hidden_states

    def _substitute(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self._current, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._current}

    def _after_attention(self) -> nn.Module:
        """Return the last layer's block that adds attention's output to its input (BERT family)."""
        assert self._stack is not None
        return self._stack.layers[-1].get_submodule("attention.output")

    @torch.no_grad()
    def _fill(self) -> None:
        """Compute the input of the first adapted layer for every example, kept without padding."""
        assert self._stack is not None
        pieces: dict[int, Tensor] = {}
        index = torch.arange(len(self), device=self.labels.device)
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(_first_argument(args, kwargs))
            raise _Reached

        with _hook(self._stack.layers[self._stack.first], stop):
            for chosen in self.by_length(index.cpu().numpy(), 64):
                try:
                    self._forward(self.batch(chosen))
                except _Reached:
                    hidden = seen.pop()
                for row, example in enumerate(chosen.tolist()):
                    length = hidden.shape[1] if self._lengths is None else int(self._lengths[example])
                    pieces[example] = hidden[row, :length]
        self._flat = torch.cat([pieces[i] for i in range(len(self))])
        sizes = torch.tensor([len(pieces[i]) for i in range(len(self))], device=index.device)
        self._starts = torch.cumsum(sizes, 0) - sizes

    @torch.no_grad()
    def _prove(self, tolerance: float) -> None:
        """Keep only shortcuts under which a batch of mixed lengths gets the plain model's logits."""
        assert self._stack is not None
        probe = torch.arange(0, len(self), max(1, len(self) // 16), device=self.labels.device)[:16]
        outputs: list[Any] = []
        layer = self._stack.layers[0]
        watch = layer.register_forward_hook(lambda m, a, out: outputs.append(out))
        plain = self._forward(self.batch(probe))
        watch.remove()
        self._tuples = isinstance(outputs[0], tuple)

        def same() -> bool:
            with self.shortcuts():
                short = self.logits(probe)
            return bool((short - plain).abs().max() <= tolerance * plain.abs().max().clamp(min=1.0))

        if not same():
            log.warning("the cached path does not reproduce the model's logits; using the plain path")
            self._flat = None
            return
        try:
            self._after_attention()
            self.first_token_only = True
            self.first_token_only = same()
        except (AttributeError, RuntimeError, ValueError):
            self.first_token_only = False  # another architecture: nothing to cut
