"""Outside solvers on the same problem; their points are repaired, their claims judged.

Forms, and what is done with an answer: docs/backends.md.
"""
