"""Compiled answers of one device on a set of sub-carriers.

Derived: docs/ofdma.md, section 1.
"""
