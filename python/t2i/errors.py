"""The errors a user can cause.

Each is one clear line: what was expected, what came, what to do. The command line prints that line and exits with code
2; anything else that escapes is a bug of ours and keeps its traceback.
"""


class T2IError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(T2IError):
    """A setting, flag or argument that cannot work."""


class DataError(T2IError, ValueError):
    """An image, caption file or packed data set that cannot be used."""


class CheckpointError(T2IError, ValueError):
    """A run folder or weight file that is missing, damaged or of another shape."""


class ScorerError(T2IError, ValueError):
    """A metric that cannot be computed: its scorer is missing, or fails on real images."""


class PeerLost(T2IError):
    """Another process of the run has ended, or could not be reached."""


class Stopped(T2IError):
    """The run was asked to stop, and did so after writing a checkpoint."""


class Diverged(T2IError):
    """Step after step was skipped: the run has to go back."""
