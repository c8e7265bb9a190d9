"""The branch-and-bound engine; it knows no problem."""
