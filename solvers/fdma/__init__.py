"""Continuous FDMA by its hidden convexity: method ``convex``."""
