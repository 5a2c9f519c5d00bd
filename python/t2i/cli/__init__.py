"""The commands: flags to settings to functions."""
