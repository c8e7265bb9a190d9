"""The fast path: everything below the first adapted layer is computed once per example, not once per step.

Below the first adapted layer nothing trains and (in eval mode) nothing is random, so its output is a constant of
the example. :class:`Feed` computes it once, then lets the model run with embeddings and lower layers passed over.
What the frozen linear maps of the first adapted layer make of that constant (the base of its queries, keys and
values) is constant too. Where the model classifies from its first token, the last layer's work is done for that
token only. Each shortcut is switched on only after it reproduced the plain model's logits, under an adapter that
is not the initial one, whose B = 0 would hide faults.

Measured: docs/trainer.md, Speed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgealloc.models.training.backbone import AdapterHandle
from edgealloc.models.training.examples import Examples
from edgealloc.models.training.shortcuts import (
    Stack,
    after,
    before,
    first_argument,
    first_token_only,
    replaced,
    source_of,
)
from edgealloc.units import IntArray

log = logging.getLogger(__name__)

_LENGTH_NOISE = 0.5  # of an example's length, when batches are formed
_PROBE = 16  # examples on which a shortcut is proven
_SHAKE = 0.05  # standard deviation of what is added to the adapter meanwhile
_CHUNK = 1 << 14  # tokens at a time through a frozen map


class _Reached(Exception):
    """Ends a forward pass at the first adapted layer: what follows is not needed to fill the cache."""


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
        tolerance: float = 1e-6,
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
        self._rows: Tensor | None = None  # of the cache, that the present batch reads
        self._current: Tensor | None = None
        self._source: nn.Module | None = None
        # frozen map: its outputs, and the version of its weight that made them
        self._frozen: dict[nn.Linear, tuple[Tensor, int]] = {}
        self.first_token_only = False
        self._stack = Stack.of(handle) if fast else None
        if self._stack is not None:
            self._fill()
            with handle.shaken(_SHAKE):
                self._prove(tolerance)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """What the model reads of every example, by name: [N, ...]."""
        return self._inputs

    @property
    def cached(self) -> bool:
        """Whether the lower layers are passed over."""
        return self._flat is not None

    @property
    def frozen_maps(self) -> int:
        """Number of frozen linear maps whose outputs are looked up."""
        return len(self._frozen)

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """Gather the inputs of examples [B], cut to the longest: [B, T], or [B, ...] without a mask."""
        batch = {name: value[index] for name, value in self._inputs.items()}
        if self._lengths is not None:
            longest = int(self._lengths[index].max())
            padded = self._inputs["attention_mask"].shape[1]
            batch = {
                name: v[:, :longest] if v.ndim > 1 and v.shape[1] == padded else v for name, v in batch.items()
            }
        return batch

    def by_length(self, index: IntArray, batch_size: int) -> Iterator[Tensor]:
        """Yield batches of similar length, for evaluation where order does not matter.

        Parameters
        ----------
        index
            Which examples. Shape [N].
        batch_size
            Examples in a batch; fewer in the last.

        Yields
        ------
        Tensor
            Indices of a batch.
        """
        order = torch.from_numpy(np.asarray(index, dtype=np.int64)).to(self.labels.device)
        if self._lengths is not None:
            order = order[torch.argsort(self._lengths[order], stable=True)]
        yield from torch.split(order, batch_size)

    def shuffled(self, index: IntArray, batch_size: int, rng: np.random.Generator) -> list[Tensor]:
        """Return batches for one epoch of training, in random order, each of examples of similar length.

        Noise on the lengths keeps the batches mixed; with it, padding still falls to about half.

        Parameters
        ----------
        index
            Which examples. Shape [N].
        batch_size
            Examples in a batch; fewer in one of them.
        rng
            Generator.

        Returns
        -------
        list of Tensor
            Indices of each batch.
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
        self._rows = rows.clamp_(max=len(self._flat) - 1)
        self._current = self._flat[self._rows]
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
                if self._source is not None:
                    stack.enter_context(replaced(self._source, lambda *args, **kwargs: self._current))
                for layer in self._stack.layers[: self._stack.first]:
                    stack.enter_context(replaced(layer, self._pass_over))
                stack.enter_context(before(self._stack.entry, self._substitute))
                for module in self._frozen:
                    stack.enter_context(replaced(module, partial(self._look_up, module)))
            if self._stack is not None and self.first_token_only:
                stack.enter_context(first_token_only(self._stack.layers[-1]))
            yield

    def _pass_over(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states,) if self._tuples else hidden_states

    def _substitute(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (self._current, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._current}

    def _look_up(self, module: nn.Linear, hidden: Tensor) -> Tensor:
        """Return a frozen map's output from the cache, if it is asked for the batch."""
        if hidden is not self._current:
            return nn.Linear.forward(module, hidden)
        self._refresh(module)
        kind = hidden.device.type
        out = self._frozen[module][0][self._rows]
        return out.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else out

    @torch.no_grad()
    def _refresh(self, module: nn.Linear) -> None:
        """Compute a frozen map's outputs, unless its weight is the one that made those at hand.

        The exact aggregation moves base weights between rounds. The version counts changes in place, so it also
        rises where a weight is put back; the outputs are the same then.
        """
        version = module.weight._version
        if module not in self._frozen or self._frozen[module][1] != version:
            assert self._flat is not None
            with torch.autocast(self._flat.device.type, enabled=False):
                pieces = [nn.Linear.forward(module, part) for part in torch.split(self._flat, _CHUNK)]
            self._frozen[module] = torch.cat(pieces), version

    @torch.no_grad()
    def _fill(self) -> None:
        """Compute the input of the first adapted layer for every example, kept without padding."""
        assert self._stack is not None
        pieces: dict[int, Tensor] = {}
        index = torch.arange(len(self), device=self.labels.device)
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(first_argument(args, kwargs))
            raise _Reached

        with before(self._stack.entry, stop):
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
        probe = torch.arange(0, len(self), max(1, len(self) // _PROBE), device=self.labels.device)[:_PROBE]
        outputs: list[Any] = []
        with after(self._stack.layers[0], lambda m, args, out: outputs.append(out)):
            plain = self._forward(self.batch(probe))
        self._tuples = isinstance(outputs[0], tuple)

        def same() -> bool:
            try:
                with self.shortcuts():
                    short = self.logits(probe)
            except (AttributeError, RuntimeError, ValueError, TypeError):
                return False  # another architecture: nothing to cut
            return bool((short - plain).abs().max() <= tolerance * plain.abs().max().clamp(min=1.0))

        if not same():
            log.warning("the cached path does not reproduce the model's logits; using the plain path")
            self._flat = None
            return
        self._source = source_of(self.model, self._stack, lambda: self._forward(self.batch(probe)))
        if not same():
            self._source = None
        for module in self._constant_maps(lambda: self.logits(probe)):
            self._refresh(module)
        if not same():
            self._frozen.clear()
        self.first_token_only = True
        self.first_token_only = same()

    def _constant_maps(self, run: Callable[[], object]) -> list[nn.Linear]:
        """Find the frozen linear maps of the first adapted layer that read the cached input itself."""
        assert self._stack is not None
        found: list[nn.Linear] = []

        def watch(module: nn.Module, args: tuple[Any, ...], out: object) -> None:
            assert isinstance(module, nn.Linear)
            if args and args[0] is self._current:
                found.append(module)

        with ExitStack() as watching, self.shortcuts():
            for module in self._stack.entry.modules():
                # exactly this type: a subclass may compute something else
                if type(module) is nn.Linear and not any(p.requires_grad for p in module.parameters()):
                    watching.enter_context(after(module, watch))
            run()
        return found
