"""What the commands that follow another are made of.

* After a preparation: what works for the size that was packed, and shows as much of each image as it can.
* After a training: a caption to try.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from t2i.config.presets import EXAMPLE, PRESETS
from t2i.config.sizes import MIN_SIZE, stored_size
from t2i.data.examples import examples
from t2i.files import shell_path

FEW_IMAGES = 200  # a note says so below it
MIN_AREA = 0.5  # fraction of an image that a crop must show; a note says so below it


def packed_message(out: Path) -> str:
    """Return where the pack is, and the command that trains on it."""
    pack = json.loads((out / "pack.json").read_text(encoding="utf-8"))
    stored = int(pack["image_size"])
    message = f"packed into {out}; next: {next_command(out, stored)}"
    size = training_size(stored)
    area = (size / stored) ** 2
    if area < MIN_AREA:
        message += (
            f"\nnote: training at {size} px crops {area:.0%} of each image of {stored} px; to train on whole images, pack "
            f"them with --size {stored_size(size)}, or {stored_size(2 * size)} for training at {2 * size}"
        )
    if size > PRESETS["drawings"].size:
        drawings = f"--preset drawings --size {size}"
        message += f"\nnote: --preset modern is for photographs; for drawings and icons take {drawings}"
    if (few := int(pack["splits"]["train"])) < FEW_IMAGES:
        message += (
            f"\nnote: a model memorises {few} training images easily; use a few hundred or more, or keep the best model with "
            "--eval-every 500 --keep best"
        )
    return message


def training_size(stored: int) -> int:
    """Return the largest size of training that images of `stored` pixels are enough for: a power of two."""
    size = MIN_SIZE
    while 2 * size <= stored:
        size *= 2
    return size


def next_command(out: Path, stored: int) -> str:
    """Return the command that trains on a pack of images of `stored` pixels."""
    size = training_size(stored)
    preset = "drawings" if size <= PRESETS["drawings"].size else "modern"
    flag = "" if size == PRESETS[preset].size else f" --size {size}"
    return f"t2i-train --data {shell_path(out)} --preset {preset}{flag}"


def caption_to_try(captions: Sequence[str]) -> str:
    """Choose a caption for a command, quoted for a shell: the first short one that says something, or how a long one begins."""
    caption = next(iter(examples(captions, 1)), EXAMPLE)
    return shlex.quote(caption) if re.search(r'["$`!\\]', caption) else f'"{caption}"'  # what a shell leaves alone
