"""Prepare a data set on a Ray cluster: `t2i-prepare --shard i/n`, n times, on the machines of the cluster.

    pip install ray
    ray start --head                                # on one machine; on each other: ray start --address=HEAD:6379
    python examples/prepare_ray.py coco /shared/coco --out /shared/packs/coco --parts 16 --shard-images 512

Source and --out must be on a file system that all machines mount at the same path. The part that finishes last writes
pack.json: the same bytes as of one run on one machine. If a machine fails, Ray restarts its part, which resumes.
"""

import argparse
import socket
import subprocess
import sys
from pathlib import Path

import ray


@ray.remote(num_cpus=1, max_retries=3)
def prepare(part: int, parts: int, arguments: list[str]) -> tuple[int, str, int, str]:
    """Run one part where Ray puts it: (part, machine, exit code, what it said)."""
    command = [
        sys.executable,
        "-c",
        "from t2i.cli.main import prepare; prepare()",
        *arguments,
        "--shard",
        f"{part}/{parts}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    node = ray.get_runtime_context().get_node_id()[:8]
    said = (done.stdout if done.returncode == 0 else done.stderr).strip()
    return part, f"{socket.gethostname()} ({node})", done.returncode, said.splitlines()[-1] if said else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", help="of source, as for t2i-prepare")
    parser.add_argument("source")
    parser.add_argument("--out", required=True)
    parser.add_argument("--parts", type=int, default=8)
    known, more = parser.parse_known_args()  # the rest goes to t2i-prepare
    arguments = [known.kind, str(Path(known.source).resolve()), "--out", str(Path(known.out).resolve()), *more]
    ray.init(address="auto")
    waiting = [prepare.remote(part, known.parts, arguments) for part in range(known.parts)]
    failed = False
    while waiting:
        ready, waiting = ray.wait(waiting)
        part, machine, code, said = ray.get(ready[0])
        failed |= code != 0
        print(f"part {part} of {known.parts} on {machine}: {said or code}")
    if failed or not (Path(known.out) / "pack.json").exists():
        sys.exit(f"{known.out} is not complete; run the same command to resume")


if __name__ == "__main__":
    main()
