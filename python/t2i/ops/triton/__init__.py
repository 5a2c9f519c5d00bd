"""Kernels of our own, under the names of the operations they carry out. Imported only where they are asked for."""
