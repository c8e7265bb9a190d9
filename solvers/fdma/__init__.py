"""Continuous FDMA by its hidden convexity: method ``convex``.

Derived: docs/mathematics.md.
"""
