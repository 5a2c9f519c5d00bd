"""Timing of t2i beside the libraries a user would pick instead."""
