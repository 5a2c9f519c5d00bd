"""Does t2i-train choose a good number of threads? Alone, and beside a busy loop pinned to one core.

    python benches/python/threads.py --preset blossoms --rounds 5

A round chooses as a training does, then times steps with every number of threads in turn. Printed: the chosen number, and its
speed as a part of the best one's.
"""

import argparse
import statistics
import subprocess
import sys

import torch

from t2i.config.presets import preset
from t2i.training.machine import candidates, fastest_threads, step_timer

BUSY = "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"


def measured(config, numbers: list[int], steps: int) -> tuple[int, dict[int, float]]:
    """Choose, then time: the chosen number, and seconds a step by number of threads."""
    chosen = fastest_threads(step_timer(config), numbers)
    timer = step_timer(config)
    timer(numbers[0])
    times: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(steps):
        for number in numbers:
            times[number].append(timer(number))
    return chosen, {number: statistics.median(found) for number, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="blossoms")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    config, numbers = preset(args.preset), candidates(torch.get_num_threads())
    for name in ("alone", "beside a busy loop"):
        busy = subprocess.Popen([sys.executable, "-c", BUSY]) if name != "alone" else None
        try:
            for _ in range(args.rounds):
                chosen, seconds = measured(config, numbers, args.steps)
                speeds = {number: config.batch / second for number, second in seconds.items()}
                share = speeds[chosen] / max(speeds.values())
                shown = ", ".join(f"{number}: {speed:.0f}" for number, speed in speeds.items())
                print(f"{name}: {chosen} threads, {share:.0%} of the best (images/s by threads: {shown})", flush=True)
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()


if __name__ == "__main__":
    main()
