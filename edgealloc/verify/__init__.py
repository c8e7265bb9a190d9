"""The independent checker: its own formulas, no solver."""
