"""The experts of other clusters beside a model's own adapter, and a router that weighs them token by token.

FedLEASE, arXiv 2509.15087: with M experts a layer's router has 2 M - 1 slots, of which the first M are all the own
expert; the M largest count, so the own one is always among them, and their softmax is renormalised. The modules
are those of PEFT: a hook after B replaces B A x by the weighed sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.wire import State, WireArray, a_name, b_name
from edgealloc.models.training.backbone import AdapterHandle
from edgealloc.models.training.client import ROUTER_DRAWS
from edgealloc.models.training.shortcuts import after, before, first_argument
from edgealloc.units import BoolArray

__all__ = ["Router", "drawn_router", "router_name", "slot_weights"]

_FARTHEST = 80.0  # below the largest logit; exp(-80) is a float32 > 0, so no weight that counts becomes zero


def router_name(layer: str) -> str:
    """Return the name of a layer's router, [2 M - 1, n_in], as a tensor that is trained and never dropped."""
    return f"{layer}.router.weight"


def slot_weights(logits: Tensor, clusters: int, closed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights of the own expert and of the others, from the logits of the slots.

    Parameters
    ----------
    logits
        Of 2 M - 1 slots, the first M of which are the own expert. Shape [..., 2 M - 1].
    clusters
        M.
    closed
        Other experts that the device did not fetch. Shape [M - 1].

    Returns
    -------
    own, others
        Shapes [...] and [..., M - 1]; together 1, and ``own`` > 0 in single precision.
    """
    if closed is not None:
        shut = torch.cat((torch.zeros(clusters, dtype=torch.bool, device=closed.device), closed))
        logits = logits.masked_fill(shut, -torch.inf)
    top, slot = torch.topk(logits, clusters, dim=-1)
    weight = torch.softmax((top - top[..., :1]).clamp(min=-_FARTHEST), dim=-1)
    spread = torch.zeros_like(logits).scatter(-1, slot, weight)
    return spread[..., :clusters].sum(-1), spread[..., clusters:]


def drawn_router(handle: AdapterHandle, clusters: int, own: int, seed: int) -> dict[str, WireArray]:
    """The start of a cluster's routers, drawn as torch draws a linear layer, uniform within 1 / sqrt(n_in).

    Of equal slots the own expert alone would count and nothing would train the router, so it cannot start at zero.

    Parameters
    ----------
    handle
        The model.
    clusters, own
        M, and the cluster.
    seed
        Of the draw.

    Returns
    -------
    dict of str to array
        [2 M - 1, n_in] in single precision, by name.
    """
    rng = round_generator(seed, ROUTER_DRAWS, own)
    drawn: dict[str, WireArray] = {}
    for layer in sorted(handle.layers):
        width = _inputs(handle.layers[layer])
        drawn[router_name(layer)] = rng.uniform(-1.0, 1.0, (2 * clusters - 1, width)).astype("f4") / width**0.5
    return drawn


def _inputs(layer: Any) -> int:
    return int(layer.lora_A["default"].in_features)


class Router:
    """Routers of all adapted layers of a model, and the experts of other clusters that they may choose.

    Parameters
    ----------
    handle
        The model; it is as it was once :meth:`installed` ends.
    clusters
        M >= 2.

    Attributes
    ----------
    handle
        The model's handle with the routers among what trains.
    """

    def __init__(self, handle: AdapterHandle, clusters: int) -> None:
        self.clusters = clusters
        self._layers = dict(handle.layers)
        self._weights: dict[str, nn.Parameter] = {}
        for name, layer in handle.layers.items():
            start = layer.lora_A["default"].weight.new_zeros((2 * clusters - 1, _inputs(layer)))
            self._weights[name] = nn.Parameter(start)
        routers = {router_name(name): weight for name, weight in self._weights.items()}
        self.handle = AdapterHandle(handle.model, {**handle.parameters, **routers}, handle.layers)
        self._others: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._closed: Tensor | None = None
        self._seen: dict[str, Tensor] = {}

    def stand(self, others: Sequence[State]) -> None:
        """Put the experts of the other clusters in place, all open.

        Parameters
        ----------
        others
            Their adapters, full size, by name, in the order of the clusters. Of length M - 1.
        """
        self._closed = None
        for name, layer in self._layers.items():
            like = layer.lora_A["default"].weight
            pairs = ((s[a_name(name)], s[b_name(name)]) for s in others)
            self._others[name] = [(torch.from_numpy(a).to(like), torch.from_numpy(b).to(like)) for a, b in pairs]

    def close(self, missing: BoolArray) -> None:
        """Close the slots of the others that a device did not fetch, until :meth:`stand` or the next call.

        Parameters
        ----------
        missing
            Shape [M - 1].
        """
        device = next(iter(self._weights.values())).device
        self._closed = torch.from_numpy(missing).to(device) if missing.any() else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let the model route for the duration; every layer then reads its weights and those of the others."""
        with ExitStack() as stack:
            for name, layer in self._layers.items():
                stack.enter_context(before(layer.lora_A["default"], partial(self._keep_input, name)))
                stack.enter_context(after(layer.lora_B["default"], partial(self._mix, name)))
            yield

    def _keep_input(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen[name] = first_argument(args, kwargs)

    def _mix(self, name: str, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        x = self._seen.pop(name)
        if self._closed is not None and bool(self._closed.all()):  # nothing to route: not even rounding
            return out
        with torch.autocast(x.device.type, enabled=False):  # which slots count is no matter for few bits
            logits = nn.functional.linear(x.float(), self._weights[name].float())
        own, others = slot_weights(logits, self.clusters, self._closed)
        mixed = own[..., None].to(out) * out
        for j, (a, b) in enumerate(self._others[name]):
            product = nn.functional.linear(nn.functional.linear(x, a), b)
            mixed = mixed + others[..., j, None].to(out) * product
        return mixed
