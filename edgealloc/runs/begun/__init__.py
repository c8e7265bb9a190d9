"""A run that has begun: what is trained, what is left, and what its rounds to come are worth."""
