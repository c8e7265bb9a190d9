"""Federated LoRA fine-tuning with dropout: the trainer that checks allocations on real data.

The mask, adapter and aggregation modules need numpy only, so a federated-learning system can use them without
torch; everything that trains imports torch, transformers and peft on first use.

    wire         what travels: names, shapes and bits of an adapter and its head
    dropout      which columns of A and rows of B a device gets in a round; slicing and scattering
    aggregation  how the server merges what comes back
    data         text and image data, splits over devices, label noise
    lora         backbone + PEFT adapter + head, read and written as plain arrays
    cache        everything below the first adapted layer, computed once
    federated    the rounds
    sweep        pilot runs over dropout rates
    calibrate    the bound's constants from pilot runs
    validate     allocations trained under the cell's clock and meter
"""

from __future__ import annotations

if __name__ != "edgealloc.models":  # pragma: no cover - exercised in a subprocess
    raise ImportError(
        f"this package is 'edgealloc.models' and was imported as {__name__!r}: remove its parent folder from "
        "sys.path (a project that embeds edgealloc may own the name 'models')"
    )

from importlib import import_module
from typing import Any

_HOME = {
    "AdapterShape": "exchange.wire",
    "Masks": "exchange.dropout",
    "draw_masks": "exchange.dropout",
    "slice_adapter": "exchange.dropout",
    "scatter_adapter": "exchange.dropout",
    "Aggregation": "exchange.aggregation",
    "Update": "exchange.aggregation",
    "aggregate": "exchange.aggregation",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use, so that importing the package stays light."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
