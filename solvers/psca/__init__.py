"""Penalised successive convex approximation: methods ``psca`` and ``psca+``."""
