"""What a certificate of one band proves, step by step, in intervals and ball arithmetic."""
