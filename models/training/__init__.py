"""FedLoDrop training in PyTorch.

A round: docs/trainer.md.
"""
