"""From fractional owners and levels to an allocation that keeps every budget.

Derived: docs/psca.md, section 5.
"""
