"""What travels between server and devices: wire format, masks, aggregation; numpy only.

The pieces: docs/trainer.md.
"""
