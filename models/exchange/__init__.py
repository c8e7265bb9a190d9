"""What travels between server and devices: wire format, masks, aggregation; numpy only."""
