"""How kernels are compiled, where compiled code is kept, and the clock that does not count compiling.

For users: docs/machines.md.
"""
