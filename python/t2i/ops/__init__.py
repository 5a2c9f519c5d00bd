"""Fused operations: each file is the definition in plain PyTorch and the faster form that equals it."""
