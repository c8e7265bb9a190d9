"""Penalised successive convex approximation: methods ``psca`` and ``psca+``.

Derived: docs/psca.md.
"""
