"""Outside solvers on the same problem; their points are repaired, their claims judged."""
