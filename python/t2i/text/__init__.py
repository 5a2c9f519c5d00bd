"""Captions in, vectors out: tokenizers and text encoders."""
