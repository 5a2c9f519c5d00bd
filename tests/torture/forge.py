"""A process that has torch loaded and no thread running, which forks a child for every run that is to be killed.

Starting Python and torch costs two seconds, a fork a few milliseconds. Forking is sound because this process never lets
torch, NumPy or the native module start a thread: it only imports, and every run happens in a child with one thread.

`python forge.py` reads one JSON request a line from stdin and answers one a line on stdout, see `Forge` in conftest.py:

    {"call": "module:function", "arguments": {...}, "deadline": seconds, "limit": bytes or null}

The child calls the function and exits with what it returns (0 for None), 2 after a T2IError as the commands do, 130 after
Stopped, 1 after anything else. The answer holds the exit code (negative: the signal) and what the child wrote to stderr.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import traceback


def child(request, stderr):
    """Run one request in a forked child; never returns."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the forge
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(stderr, 2)
    code = 1
    try:
        from t2i.errors import Stopped, T2IError

        module, name = request["call"].split(":")
        try:
            code = getattr(importlib.import_module(module), name)(**request["arguments"]) or 0
        except Stopped as error:
            print(f"stopped: {error}", file=sys.stderr)
            code = 130
        except T2IError as error:
            print(f"error: {error}", file=sys.stderr)
            code = 2
        except SystemExit as error:
            code = error.code
        except KeyboardInterrupt:
            code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def serve():
    """Answer requests until stdin ends."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    own = ("t2i.training.gan", "t2i.training.text", "t2i.training.style", "t2i.prepare", "t2i.cli.main", "victims")
    for module in (*own, "torch._dynamo", "PIL.ImageFont"):  # the first optimizer imports dynamo: a second or two
        importlib.import_module(module)
    Image.init()
    assert len(os.listdir("/proc/self/task")) == 1, "a thread runs: its locks may be held for ever in a forked child"
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as stderr:
            pid = os.fork()
            if pid == 0:
                child(request, stderr.fileno())
            pidfd = os.pidfd_open(pid)
            late = not select.select([pidfd], [], [], request["deadline"])[0]
            if late:
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            os.close(pidfd)
            stderr.seek(0)
            answer = {
                "code": os.waitstatus_to_exitcode(status),
                "late": late,
                "stderr": stderr.read().decode(errors="replace"),
            }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
