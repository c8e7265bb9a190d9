"""The mathematics of the problem: bound, latency, energy, radio, and what a result says of it."""
