"""A trained model in the browser."""
