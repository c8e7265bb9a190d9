"""The branch-and-bound engine; it knows no problem.

Derived: docs/branch_and_bound.md, section 1.
"""
