"""The convex sub-problem of one iteration."""
