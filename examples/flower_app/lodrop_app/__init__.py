"""Federated LoRA with dropout under edgealloc's allocation, on Flower."""
