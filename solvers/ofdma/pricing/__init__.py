"""The best set of sub-carriers at prices, with its bound."""
