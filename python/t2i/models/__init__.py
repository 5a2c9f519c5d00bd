"""The networks, and every one of them made from settings."""
