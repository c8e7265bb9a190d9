"""FedLoDrop training in PyTorch."""
