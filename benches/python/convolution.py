"""Weight gradient of small maps: t2i.ops.convolution against the library's, alone and in the whole step.

    python benches/python/convolution.py [--rounds 5]

Prints one JSON line a row: ratio of the library's time to ours, median and spread over the rounds. CPU, bfloat16.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from t2i.ops.convolution import convolution

SHAPES = [(256, 512, 8), (128, 256, 16), (64, 128, 8), (32, 64, 16)]  # channels in, out, side; 4x4, stride 2, batch 64


def weight_gradient(impl: str, x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Time one weight gradient in milliseconds."""
    with torch.autocast("cpu", torch.bfloat16):
        out = (
            F.conv2d(x, weight, None, 2, 1) if impl == "library" else convolution(x, weight, None, 2, 1, impl="product")
        )
    start = time.perf_counter()
    gradient = torch.autograd.grad(out, weight, grad)[0]
    return gradient, (time.perf_counter() - start) * 1e3


def main() -> None:
    """Alternate rival and self, so that both meet the same machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for before, after, side in SHAPES:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(64, before, side, side, generator=rng).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(after, before, 4, 4, generator=rng).requires_grad_()
        grad = torch.randn(64, after, side // 2, side // 2, generator=rng).bfloat16()
        grad = grad.contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {"library": [], "product": []}
        answers = {}
        for turn in range(rounds + 1):
            for impl, taken in times.items():
                answers[impl], elapsed = weight_gradient(impl, x, weight, grad)
                if turn:  # the first round warms up
                    taken.append(elapsed)
        error = (answers["library"] - answers["product"]).abs().max() / answers["library"].abs().max()
        assert error < 0.01, error
        ratios = [rival / self for rival, self in zip(times["library"], times["product"], strict=True)]
        row = {"name": f"weight gradient {before} -> {after}, {side} px", "ratio": round(statistics.median(ratios), 2)}
        row |= {"n": rounds, "least": round(min(ratios), 2), "most": round(max(ratios), 2), "unit": "times the library"}
        print(json.dumps(row | {"torch": torch.__version__, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
