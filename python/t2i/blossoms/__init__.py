"""The embedded data set: synthetic flowers with captions, classes and known attributes."""
