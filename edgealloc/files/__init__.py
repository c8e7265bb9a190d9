"""JSON in and out; every fault of a file at once."""
