"""Metrics of generated images and of encoders: one family per module."""
