"""What the checker says: findings by device and field, and what it recomputed."""

from __future__ import annotations

from dataclasses import dataclass

from edgealloc.errors import Fault, InputError, printable

__all__ = ["Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """Verdict of the checker.

    Parameters
    ----------
    instance, method, status
        What was judged, as the solution states it.
    faults
        Everything that is wrong: device, field, value and what is allowed. Empty: accepted.
    notes
        What was proved beyond the claims, and what was left unproved.
    objective
        The bound G, recomputed; None without an allocation.
    devices, in_balls, bits
        Devices checked; how many budgets needed ball arithmetic, and the highest precision used.
    feasible
        Whether the allocation breaks no rule and no budget, whatever is claimed of it; False without one.
    """

    instance: str
    method: str
    status: str
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()
    objective: float | None = None
    devices: int = 0
    in_balls: int = 0
    bits: int = 0
    feasible: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def __str__(self) -> str:
        method, name = printable(self.method), printable(repr(self.instance))  # as the files state them
        head = f"{'ACCEPTED' if self.ok else 'REJECTED'}: {self.status} by {method} on {name}"
        lines = [head]
        if self.objective is not None:
            lines.append(f"  objective recomputed: {self.objective:.12g}")
            text = f"  budgets of {self.devices} devices decided exactly, {self.in_balls} in ball arithmetic"
            lines.append(text + (f" with up to {self.bits} bits" if self.in_balls else ""))
        lines += [f"  wrong: {fault}" for fault in self.faults[: InputError.MAX_SHOWN]]
        if len(self.faults) > InputError.MAX_SHOWN:
            lines.append(f"  ... and {len(self.faults) - InputError.MAX_SHOWN} more (see .faults)")
        lines += [f"  note: {printable(note)}" for note in self.notes]
        return "\n".join(lines)
