"""The best set of sub-carriers at prices, with its bound.

Derived: docs/ofdma.md, sections 2 and 3.
"""
