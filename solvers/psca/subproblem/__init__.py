"""The convex sub-problem of one iteration.

Derived: docs/psca.md, sections 2 and 3.
"""
