"""Mixed-integer linear programs of proven lines, by HiGHS.

Derived: docs/backends.md, HiGHS.
"""
