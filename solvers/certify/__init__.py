"""Writes what a result proves as a certificate."""
