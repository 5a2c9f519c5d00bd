"""What the failure tests share: the forge's client, small runs that nothing happened to, and what is asked of a folder."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from promises import TORTURE

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "python"


class Forge:
    """The process of forge.py."""

    def __init__(self):
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "forge.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(self, call, deadline=1000 if TORTURE else 100, **arguments):
        """Call "function" of victims.py, or "module:function", in a fresh child; returns (exit code, stderr)."""
        name = call if ":" in call else f"victims:{call}"
        request = {"call": name, "arguments": arguments, "deadline": deadline}
        print(json.dumps(request, default=str), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert not answer["late"], f"{call} hung: {answer['stderr']}"
        return answer["code"], answer["stderr"]

    def close(self):
        self.process.kill()  # it keeps nothing; a child that still runs, after an interrupt, ends with it
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def leftovers(folder):
    """Temporary files that a writer did not clear away."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*partial*"))


def moment(case, limit):
    """A moment of a run for a case, 1 to `limit`: from a stream of chance that is the same in every session."""
    return random.Random(f"moment {case}").randint(1, limit)


def steps_saved(folder):
    """How many steps of the text encoder (5 in all) and of the GAN the folder can go on from."""

    def newest(checkpoints):
        return max((int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*")), default=0)

    text = 5 if (folder / "text.safetensors").exists() else newest(folder / "text" / "checkpoints")
    return text, newest(folder / "checkpoints")


class Unbroken:
    """A run that nothing happened to: the hash it ends with, and how many calls and disk units it takes.

    Args:
        forge: Where it runs.
        what: "gan" (the text encoder, then the GAN) or "style".
        data: The packed data set.
        folder: A new one.
        start: A run folder to begin from, for the style encoder.
    """

    def __init__(self, forge, what, data, folder, start=None):
        self.what, self.data, self.start = what, data, start
        self.model = {"gan": "model.safetensors", "style": "style.safetensors"}[what]
        counted, hashes = {}, set()
        for way in ("count_calls", "count_disk"):
            out = folder / f"{way}.txt"
            self.folder = self.begin(folder / way)
            code, errors = forge(way, what=what, data=data, folder=self.folder, out=out)
            assert code == 0, errors
            counted[way] = int(out.read_text())
            hashes.add(self.result(self.folder))
        self.calls, self.units = counted["count_calls"], counted["count_disk"]
        (self.hash,) = hashes

    def begin(self, folder):
        """Make a folder for another run of the same kind."""
        if self.start is not None:
            shutil.copytree(self.start, folder)
        return folder

    def result(self, folder):
        """Hash what a run ended with."""
        return sha256(folder / self.model)
