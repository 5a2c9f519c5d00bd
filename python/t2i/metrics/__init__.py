"""How good the pictures are: one measure a module."""
