"""The embedded data set: drawn flowers with captions, classes and known attributes."""
