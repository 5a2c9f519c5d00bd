"""Image grids, curves and ROC plots."""
