"""A lock on an open file that ends with the process that holds it, on every system."""

import sys
from typing import IO

BEHIND = 1 << 30  # byte that stands for the file on Windows, where a locked byte cannot be read by others

if sys.platform == "win32":
    import msvcrt

    def lock(file: IO[str]) -> None:
        """Lock a file for this process alone; BlockingIOError where another holds it."""
        place = file.tell()
        file.seek(BEHIND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, "held by another process") from error
        finally:
            file.seek(place)

else:
    import fcntl

    def lock(file: IO[str]) -> None:
        """Lock a file for this process alone; BlockingIOError where another holds it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
