"""An expert for each kind of device: warm-up, clusters, a federation per cluster, a router over all experts.

Which paper, and what differs: docs/related.md, FedLEASE.
"""
