"""Settings as frozen dataclasses, the presets, and their files. Nothing here imports torch."""
