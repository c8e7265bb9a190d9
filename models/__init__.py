"""Federated LoRA fine-tuning with dropout: the trainer that checks allocations on real data.

    exchange     what travels between server and device: inventory, masks, slices, merging; numpy only
    training     the trainer: data, model and adapter, a device's round, all rounds
    trials       is the bound's word true: pilot runs, calibration, allocations trained under the cell's clock

The names below are imported when they are first used: those of ``exchange`` need numpy only, so a
federated-learning system can use them without torch; those that train import torch, transformers and peft.
"""

from __future__ import annotations

if __name__ != "edgealloc.models":  # pragma: no cover - exercised in a subprocess
    raise ImportError(
        f"this package is 'edgealloc.models' and was imported as {__name__!r}: remove its parent folder from "
        "sys.path (a project that embeds edgealloc may own the name 'models')"
    )

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.models.exchange.aggregation import Aggregation as Aggregation
    from edgealloc.models.exchange.aggregation import Update as Update
    from edgealloc.models.exchange.aggregation import aggregate as aggregate
    from edgealloc.models.exchange.dropout import Masks as Masks
    from edgealloc.models.exchange.dropout import draw_masks as draw_masks
    from edgealloc.models.exchange.dropout import full_masks as full_masks
    from edgealloc.models.exchange.dropout import masked as masked
    from edgealloc.models.exchange.dropout import round_generator as round_generator
    from edgealloc.models.exchange.dropout import scatter_adapter as scatter_adapter
    from edgealloc.models.exchange.dropout import slice_adapter as slice_adapter
    from edgealloc.models.exchange.replies import Gathered as Gathered
    from edgealloc.models.exchange.replies import gather as gather
    from edgealloc.models.exchange.replies import masks_for as masks_for
    from edgealloc.models.exchange.wire import AdapterShape as AdapterShape
    from edgealloc.models.exchange.wire import canonical_state as canonical_state
    from edgealloc.models.exchange.wire import pack as pack
    from edgealloc.models.exchange.wire import unpack as unpack
    from edgealloc.models.training.backbone import AdapterHandle as AdapterHandle
    from edgealloc.models.training.client import FederatedOptions as FederatedOptions
    from edgealloc.models.training.client import evaluate as evaluate
    from edgealloc.models.training.task import Setup as Setup
    from edgealloc.models.training.task import Task as Task
    from edgealloc.models.training.task import build_task as build_task
    from edgealloc.models.trials.calibrate import calibrate as calibrate
    from edgealloc.models.trials.calibrate import pilot_from_records as pilot_from_records
    from edgealloc.models.trials.plans import plan_from_result as plan_from_result
    from edgealloc.models.trials.validate import validate as validate

_HOME = {
    "AdapterHandle": "training.backbone",
    "AdapterShape": "exchange.wire",
    "Aggregation": "exchange.aggregation",
    "FederatedOptions": "training.client",
    "Gathered": "exchange.replies",
    "Masks": "exchange.dropout",
    "Setup": "training.task",
    "Task": "training.task",
    "Update": "exchange.aggregation",
    "aggregate": "exchange.aggregation",
    "build_task": "training.task",
    "calibrate": "trials.calibrate",
    "canonical_state": "exchange.wire",
    "draw_masks": "exchange.dropout",
    "evaluate": "training.client",
    "full_masks": "exchange.dropout",
    "gather": "exchange.replies",
    "masked": "exchange.dropout",
    "masks_for": "exchange.replies",
    "pack": "exchange.wire",
    "pilot_from_records": "trials.calibrate",
    "plan_from_result": "trials.plans",
    "round_generator": "exchange.dropout",
    "scatter_adapter": "exchange.dropout",
    "slice_adapter": "exchange.dropout",
    "unpack": "exchange.wire",
    "validate": "trials.validate",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
