"""An allocation: what every device is given, as read-only arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgealloc.units import BoolArray, FloatArray, IntArray, rebuilt

__all__ = ["Allocation"]


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """Dropout, spectrum, power and processor frequency of every device, as read-only arrays.

    Parameters
    ----------
    keep
        Keep rates s_k; the dropout rate is 1 - s_k. Shape [K].
    freq_hz
        Processor frequencies in Hz. Shape [K].
    power_w
        Transmit power in W: of each device, shape [K]; for OFDMA on each sub-carrier, shape [M].
    bandwidth_hz
        Bandwidth of each device in Hz, shape [K]; None for OFDMA.
    owner
        Device of each sub-carrier, -1 for none, shape [M]; None unless OFDMA.
    selected
        Which devices take part. Shape [K].
    option
        Row of the adapter menu, -1 for a device without a menu. Shape [K].
    """

    keep: FloatArray
    freq_hz: FloatArray
    power_w: FloatArray
    bandwidth_hz: FloatArray | None = None
    owner: IntArray | None = None
    selected: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    option: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def __post_init__(self) -> None:
        k = len(self.keep)
        if not len(self.selected):
            object.__setattr__(self, "selected", np.ones(k, dtype=bool))
        if not len(self.option):
            object.__setattr__(self, "option", np.full(k, -1, dtype=np.intp))
        for name, dtype in (
            ("keep", np.float64),
            ("freq_hz", np.float64),
            ("power_w", np.float64),
            ("bandwidth_hz", np.float64),
            ("owner", np.intp),
            ("selected", np.bool_),
            ("option", np.intp),
        ):
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=dtype)
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    __reduce__ = rebuilt

    @property
    def dropout(self) -> FloatArray:
        """Dropout rates ``1 - keep``. Shape [K]."""
        return np.asarray(1.0 - self.keep)

    def subcarriers_of(self, device: int) -> IntArray:
        """Sub-carriers that a device owns; for OFDMA only.

        Parameters
        ----------
        device
            Index of the device, 0 to K - 1.

        Returns
        -------
        numpy.ndarray
            Indices into ``owner``, increasing. Shape [number of them].
        """
        assert self.owner is not None
        return np.flatnonzero(self.owner == device)
