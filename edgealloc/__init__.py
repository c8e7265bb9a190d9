"""edgealloc: provably optimal resource allocation for federated LoRA fine-tuning at the wireless edge."""
