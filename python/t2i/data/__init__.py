"""Packed data sets, the batch plan over them, and the loaders that carry it out."""
