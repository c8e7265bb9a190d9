"""Branch and price over sub-carriers: method ``bnb`` for OFDMA.

Derived: docs/ofdma.md.
"""
