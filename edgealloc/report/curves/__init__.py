"""Pictures of how a method ends up where it does, and of what budgets are worth.

Each function draws on axes of one's own (``ax=``) or on a new figure for the screen, one column of a paper or its
page of two (``size=``), and returns the figure.
"""
