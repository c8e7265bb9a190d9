"""What a certificate of a whole training run proves, interval by interval."""
