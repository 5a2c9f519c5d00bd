"""Readers of data sets as people have them, one format a module."""
