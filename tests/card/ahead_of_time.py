"""Compile t2i's Triton kernels for real GPUs on a machine without one, as their own launch code calls them.

    python ahead_of_time.py 80 90

The operations' Python runs on meta tensors of a training's sizes, with each launch recorded; each is compiled by Triton under a
driver that only answers with the target. Registers, stack and local memory are read off the cubin by Triton's own cuobjdump.
Prints a JSON list. Not under TRITON_INTERPRET: that replaces the compiler.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import MockTensor

from t2i.ops.triton import crop_flip_normalise

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SIZES = [(64, 64, 8189), (512, 64, 8189), (512, 64, 200_000), (256, 256, 8189), (4096, 256, 8189)]  # rows, crop, images


class Driver:
    """As much of a driver as compiling asks for."""

    def __init__(self, architecture):
        self.target = GPUTarget("cuda", architecture, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch  # a cache of its own for each target

    def get_current_stream(self, _=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("meta")

    def map_python_to_cpp_type(self, _):
        return "void*"


def launches():
    """Record the launches of every kernel at every size."""
    found = []

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *arguments, **options: found.append((tag, self.kernel, arguments, options, grid))

    crop_flip_normalise.launch = Recorder
    for rows, crop, images in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            tag = f"crop {rows} x {crop} px of {images}, {dtype}"

            def numbers(*shape):
                return torch.empty(*shape, dtype=torch.int64, device="meta")

            side = crop * 76 // 64
            data = torch.empty(images, side, side, 3, dtype=torch.uint8, device="meta")
            cut = crop_flip_normalise._forward._init_fn
            cut(data, numbers(rows), numbers(rows, 2), numbers(rows), crop, dtype)
    return found


def resources(cubin):
    """Read registers, stack and local memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        said = subprocess.run([TOOL, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    return {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}


def main() -> None:
    """Compile everything for every architecture that is named."""
    assert not os.environ.get("TRITON_INTERPRET"), "the interpreter replaces the compiler"
    found = []
    for tag, kernel, arguments, options, grid in launches():
        for architecture in map(int, sys.argv[1:]):
            triton.runtime.driver.set_active(Driver(architecture))
            given = [MockTensor(a.dtype, list(a.shape)) if isinstance(a, torch.Tensor) else a for a in arguments]
            compiled = kernel.warmup(*given, grid=grid, **options)
            found.append(
                {
                    "case": tag,
                    "architecture": architecture,
                    "grid": list(grid),
                    "floats": [value for value in arguments if isinstance(value, float)],
                    **resources(compiled.asm["cubin"]),
                }
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
