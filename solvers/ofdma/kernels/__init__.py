"""Compiled answers of one device on a set of sub-carriers."""
