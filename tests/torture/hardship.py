"""`python hardship.py KIND,KIND FLAGS`: make this process poor, make sure that it is, then run t2i-train with the flags.

Kinds: home (read-only), network (none), language (LANG=C without UTF-8, set by the caller), files (few descriptors).
Exits with 77 where a hardship cannot be made here.
"""

import ctypes
import os
import resource
import socket
import subprocess
import sys
import tempfile

NEW_NAMESPACES = {"home": 0x00020000, "network": 0x40000000}  # CLONE_NEWNS, CLONE_NEWNET
FILES = 40


def give_up(why):
    print(why, file=sys.stderr)
    sys.exit(77)


def unshare(kind):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACES[kind]):
        give_up(f"{kind}: no new namespace here: {os.strerror(ctypes.get_errno())}")


def make(kind):
    if kind == "home":
        home = tempfile.mkdtemp()
        unshare(kind)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", home]).returncode:
            give_up("home: nothing can be mounted here")
        os.environ["HOME"] = home
        os.environ.pop("XDG_CACHE_HOME", None)
        try:
            os.mkdir(os.path.join(home, ".cache"))
        except OSError:
            return
        give_up("home: it can be written")
    elif kind == "network":
        unshare(kind)
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)  # the loop is down, too
        except ConnectionRefusedError:
            give_up("network: there is one")
        except OSError:
            return
    elif kind == "language":
        if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
            give_up(f"language: the file system's encoding is {sys.getfilesystemencoding()}")
    elif kind == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


for kind in sys.argv[1].split(","):
    make(kind)
sys.argv = ["t2i-train", *sys.argv[2:]]
from t2i.cli.main import train  # noqa: E402 (after the process was made poor)

train()
