"""How an instance shows itself: in a line, and as a table in a notebook."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgealloc.tables.listing import Column, Listing
from edgealloc.units import linear_to_db

__all__ = ["Displayed"]

_MAX_ROWS = 20
_COLUMNS = (
    Column("device", number=False),
    Column("samples"),
    Column("mean gain", "dB"),
    Column("power", "mW"),
    Column("energy", "J"),
    Column("payload", "kbit"),
    Column("cycles", "1e9"),
    Column("clock", "GHz"),
    Column("keep rates", number=False),
)


class Displayed:
    """What an instance says of itself; the fields are those of :class:`edgealloc.Instance`."""

    __slots__ = ()

    @property
    def words(self: Any) -> str:
        """Devices, spectrum and deadline in a few words."""
        band = self.bandwidth_hz
        spectrum = f"{band / 1e6:.4g} MHz" if band >= 1e6 else f"{band / 1e3:.4g} kHz"
        if self.num_subcarriers is not None:
            spectrum += f" in {self.num_subcarriers} sub-carriers"
        elif self.block_hz is not None:
            spectrum += f" in blocks of {self.block_hz / 1e3:.4g} kHz"
        return f"{self.num_devices} devices, {spectrum}, {self.latency_s:g} s a round"

    def __repr__(self: Any) -> str:
        extras = [
            name
            for name, there in (
                ("keep levels", self.keep_levels is not None),
                ("adapter menu", self.adapter_options is not None),
                ("own underfitting terms", self.device_underfit is not None),
                ("selection", self.exclusion_penalty is not None),
                ("common keep rate", self.common_keep),
            )
            if there
        ]
        told = f"Instance {self.name!r}: {self.access}, {self.words}"
        return told + (f"; {', '.join(extras)}" if extras else "")

    def _repr_html_(self: Any) -> str:
        count = self.num_devices
        head = count if count <= _MAX_ROWS else _MAX_ROWS // 2
        rows: list[tuple[str, ...]] = [self._row(k) for k in range(head)]
        if head < count:
            rows += [(), *(self._row(k) for k in range(count - head, count))]
        note = f"... {count - 2 * head} more" if head < count else ""
        return Listing(repr(self), _COLUMNS, tuple(rows), note).html()

    def _row(self: Any, k: int) -> tuple[str, ...]:
        gain = float(np.mean(self.gain[k]))
        payload = f"{self.payload_fixed_bits[k] / 1e3:.4g} + {self.payload_lora_bits[k] / 1e3:.4g} s"
        cycles = f"{self.cycles_fixed[k] / 1e9:.4g} + {self.cycles_lora[k] / 1e9:.4g} s"
        return (
            self.device_names[k],
            f"{self.samples[k]:g}",
            f"{linear_to_db(gain):.1f}" if gain > 0.0 else "none",
            f"{self.power_max_w[k] * 1e3:.4g}",
            f"{self.energy_j[k]:.4g}",
            payload,
            cycles,
            f"{self.freq_min_hz[k] / 1e9:.3g} to {self.freq_max_hz[k] / 1e9:.3g}",
            f"{self.keep_min[k]:g} to {self.keep_max[k]:g}",
        )
