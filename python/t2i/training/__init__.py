"""Training: one loop a file, each readable on its own."""
