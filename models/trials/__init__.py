"""Is the word of the bound true? Pilots, calibration, validation by training.

Calibration and validation: docs/trainer.md.
"""
