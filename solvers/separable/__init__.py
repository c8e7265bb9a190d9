"""One band with variants: levels, menus, selection, blocks, other bounds.

Derived: docs/branch_and_bound.md.
"""
