"""Random cells with the channel models of 3GPP, devices and adapters as they are.

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.scenario.adapter import adapter_menu as adapter_menu
    from edgealloc.scenario.architecture import ARCHITECTURES as ARCHITECTURES
    from edgealloc.scenario.architecture import configured_layers as configured_layers
    from edgealloc.scenario.architecture import lora_layers as lora_layers
    from edgealloc.scenario.cell import Cell as Cell
    from edgealloc.scenario.cell import make_cell as make_cell
    from edgealloc.scenario.cell import next_round as next_round
    from edgealloc.scenario.environment import ENVIRONMENTS as ENVIRONMENTS
    from edgealloc.scenario.fading import doppler_hz as doppler_hz
    from edgealloc.scenario.fading import lag_correlation as lag_correlation
    from edgealloc.scenario.hardware import DEVICE_CLASSES as DEVICE_CLASSES
    from edgealloc.scenario.neighbours import nearest as nearest
    from edgealloc.scenario.neighbours import neighbour_menus as neighbour_menus
    from edgealloc.scenario.options import CellOptions as CellOptions
    from edgealloc.scenario.tensors import read_adapter as read_adapter

_HOME = {
    "ARCHITECTURES": "architecture",
    "Cell": "cell",
    "CellOptions": "options",
    "DEVICE_CLASSES": "hardware",
    "ENVIRONMENTS": "environment",
    "adapter_menu": "adapter",
    "configured_layers": "architecture",
    "doppler_hz": "fading",
    "lag_correlation": "fading",
    "lora_layers": "architecture",
    "make_cell": "cell",
    "nearest": "neighbours",
    "neighbour_menus": "neighbours",
    "next_round": "cell",
    "read_adapter": "tensors",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
