"""What a certificate of sub-carriers proves, step by step."""
