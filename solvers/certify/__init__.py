"""Writes what a result proves as a certificate.

What they hold and why it proves a bound: docs/certificates.md.
"""
