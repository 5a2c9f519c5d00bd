"""Weight gradient of small maps: t2i.ops.convolution against the library's, in turn.

    python benches/python/convolution.py [--rounds 5] [--threads 1]

Prints one JSON line a row: ratio of the library's time to ours, median and spread over the rounds. CPU; 4x4, stride 2,
batch 64.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from t2i.ops.convolution import convolution, transposed_convolution

CASES = [  # transposed, channels in, out, side of the input, arithmetic
    (False, 256, 512, 8, torch.bfloat16),
    (False, 128, 256, 16, torch.bfloat16),
    (False, 64, 128, 8, torch.bfloat16),
    (False, 32, 64, 16, torch.bfloat16),
    (True, 1024, 512, 4, torch.float32),
    (True, 512, 256, 8, torch.float32),
    (False, 256, 512, 8, torch.float32),
    (False, 128, 256, 16, torch.float32),
]


def weight_gradient(impl: str, x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor, transposed: bool) -> tuple:
    """Compute one weight gradient; also returns its milliseconds."""
    ours, library = (transposed_convolution, F.conv_transpose2d) if transposed else (convolution, F.conv2d)
    with torch.autocast("cpu", torch.bfloat16, enabled=grad.dtype is torch.bfloat16):
        out = library(x, weight, None, 2, 1) if impl == "library" else ours(x, weight, None, 2, 1, impl="product")
    start = time.perf_counter()
    gradient = torch.autograd.grad(out, weight, grad)[0]
    return gradient, (time.perf_counter() - start) * 1e3


def main() -> None:
    """Alternate rival and self, so that both meet the same machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    for transposed, before, after, side, dtype in CASES:
        rng = torch.Generator().manual_seed(0)
        layout = {"memory_format": torch.channels_last}
        x = torch.randn(64, before, side, side, generator=rng).contiguous(**layout)
        shape = (before, after, 4, 4) if transposed else (after, before, 4, 4)
        weight = torch.randn(shape, generator=rng).contiguous(**layout).requires_grad_()
        out = side * 2 if transposed else side // 2
        grad = torch.randn(64, after, out, out, generator=rng).to(dtype).contiguous(**layout)
        times: dict[str, list[float]] = {"library": [], "product": []}
        answers = {}
        for turn in range(options.rounds + 1):
            for impl, taken in times.items():
                answers[impl], elapsed = weight_gradient(impl, x, weight, grad, transposed)
                if turn:  # the first round warms up
                    taken.append(elapsed)
        error = (answers["library"] - answers["product"]).abs().max() / answers["library"].abs().max()
        assert error < (0.01 if dtype is torch.bfloat16 else 1e-4), error
        ratios = [rival / self for rival, self in zip(times["library"], times["product"], strict=True)]
        name = f"weight gradient {before} -> {after}{' transposed' if transposed else ''}, {side} px, {dtype}"
        row = {"name": name, "ratio": round(statistics.median(ratios), 2), "unit": "times the library"}
        row |= {"n": options.rounds, "least": round(min(ratios), 2), "most": round(max(ratios), 2)}
        print(json.dumps(row | {"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
