"""Allocation and masks inside Flower."""
