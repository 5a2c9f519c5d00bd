"""A diffusion rival: a small text-conditioned rectified flow, trained on the same pack, text and CPU seconds as a GAN of t2i.

    t2i-train text --data PACK --preset modern --out runs/text
    python benches/rivals/rectified_flow.py --data PACK --text runs/text --seconds 400 --out runs/flow \
        --features inception.safetensors --scorer runs/scorer

Training: x_t = (1 - t) noise + t image, and a U-Net learns the velocity image - noise at (x_t, t, text), by mean squared error,
t logit-normal. Sampling: Euler steps from noise to image; guidance goes beyond the text's velocity, away from that without
text, which the network learns by leaving out a tenth of the texts.

Source: Liu et al. 2022 (rectified flow); Lipman et al. 2023; Esser et al. 2024 (logit-normal t); Ho and Salimans 2022
(guidance); Dhariwal and Nichol 2021 (the U-Net's blocks). Written from the formulas.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i import runtime
from t2i.config.records import text_options
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.images import save_image, to_uint8
from t2i.metrics.images import images_of_pipeline
from t2i.plots import grids
from t2i.text.pretrained import load_text
from t2i.text.table import caption_table
from t2i.training.optim import ema_rate, update_ema

CPU = torch.device("cpu")
DROPPED = 0.1  # part of the texts that are left out


class Block(nn.Module):
    """Two 3x3 convolutions with group normalisation; time and text scale and shift the second."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, before), nn.GroupNorm(8, after)
        self.convolution1 = nn.Conv2d(before, after, 3, padding=1)
        self.convolution2 = nn.Conv2d(after, after, 3, padding=1)
        self.affine = nn.Linear(condition, 2 * after)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        nn.init.zeros_(self.convolution2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.convolution1(F.silu(self.norm1(x)))
        scale, shift = self.affine(condition)[:, :, None, None].chunk(2, dim=1)
        return self.skip(x) + self.convolution2(F.silu(torch.addcmul(shift, self.norm2(y), 1 + scale)))


class Attention(nn.Module):
    """Self-attention over the places of a map, with four heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(8, channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        parts = self.qkv(self.norm(x)).view(batch, 3, 4, channels // 4, height * width).transpose(3, 4)
        seen = F.scaled_dot_product_attention(parts[:, 0], parts[:, 1], parts[:, 2])
        return x + self.out(seen.transpose(2, 3).reshape(batch, channels, height, width))


class UNet(nn.Module):
    """Velocity of (B, 3, S, S) at times (B,) under texts (B, T): (B, 3, S, S).

    Args:
        width: Channels at full resolution; twice, three and four times as many below.
        text_dim: T.
    """

    def __init__(self, width: int, text_dim: int) -> None:
        super().__init__()
        channels, condition = [width, 2 * width, 3 * width, 4 * width], 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(2 * width, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.text = nn.Linear(text_dim, condition)
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(
            Block(before, after, condition) for before, after in zip([width, *channels], channels, strict=False)
        )
        self.middle, self.attention = Block(channels[-1], channels[-1], condition), Attention(channels[-1])
        self.up = nn.ModuleList(
            Block(2 * channel, after, condition)
            for channel, after in zip(channels[::-1], [*channels[-2::-1], width], strict=True)
        )
        self.norm, self.leave = nn.GroupNorm(8, width), nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        angles = t[:, None] * 1000 * torch.exp(-math.log(10_000) * torch.arange(self.width) / self.width)
        condition = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.text(text))
        x, kept = self.enter(x), []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x, condition)
            kept.append(x)
        x = self.attention(self.middle(x, condition))
        for level, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0) if level else x
            x = block(torch.cat([x, kept.pop()], dim=1), condition)
        return self.leave(F.silu(self.norm(x)))


class Flow:
    """What the metrics ask of a model: `config`, `device`, `encoder` and `draw`."""

    folder = None

    def __init__(
        self, network: UNet, encoder: nn.Module, scale: tuple[Tensor, Tensor], size: int, args: argparse.Namespace
    ):
        self.network, self.encoder, self.scale, self.device = network.eval(), encoder.eval(), scale, CPU
        self.steps, self.guidance, self.precision = args.steps, args.guidance, args.dtype
        self.config = SimpleNamespace(size=size, noise_dim=3 * size * size)

    @torch.no_grad()
    def draw(self, noise: Tensor, text: Tensor) -> Tensor:
        """Generate from noise (n, 3 S S) and text embeddings (n, T): (n, 3, S, S) in [-1, 1]."""
        size = self.config.size
        x = noise.view(-1, 3, size, size).contiguous(memory_format=torch.channels_last)
        said = (text - self.scale[0]) * self.scale[1]
        both = torch.cat([said, torch.zeros_like(said)])
        for step in range(self.steps):
            t = torch.full((2 * len(x),), step / self.steps)
            with runtime.autocast(CPU, self.precision):
                with_text, without = self.network(torch.cat([x, x]), t, both).float().chunk(2)
            x = x + (without + self.guidance * (with_text - without)) / self.steps
        return x.clamp(-1, 1)


def train(
    args: argparse.Namespace, data: PackedDataset, table: Tensor, scale: tuple[Tensor, Tensor]
) -> tuple[UNet, int]:
    """Train for so many CPU seconds; returns the moving average and the number of images seen."""
    torch.manual_seed(args.seed)
    network = UNet(args.width, table.shape[1]).to(memory_format=torch.channels_last)
    kept = copy.deepcopy(network).requires_grad_(False)
    adam = torch.optim.AdamW(
        network.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    sampler = Sampler(data, batch=args.batch, seed=args.seed, crop=args.size, class_uniform=False, captions_per_image=2)
    loader = Loader(sampler, CPU, batch=args.batch, crop=args.size, captions_per_image=2)
    began, step = time.process_time(), 0
    while (used := time.process_time() - began) < args.seconds:
        batch = loader.batch(step)
        said = (table[batch.captions].mean(dim=1) - scale[0]) * scale[1]
        draws = runtime.generator(CPU, args.seed, step, "flow")
        said = said * (torch.rand(args.batch, 1, generator=draws) >= DROPPED)
        noise = torch.randn(batch.images.shape, generator=draws)
        t = torch.sigmoid(torch.randn(args.batch, generator=draws))
        mixed = torch.lerp(noise, batch.images, t[:, None, None, None])
        with runtime.autocast(CPU, args.dtype):
            velocity = network(mixed.contiguous(memory_format=torch.channels_last), t, said)
        loss = F.mse_loss(velocity.float(), batch.images - noise)
        adam.param_groups[0]["lr"] = args.learning_rate * min(
            1.0, (step + 1) / 200, 4 * (1 - used / args.seconds) + 0.02
        )
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        update_ema(kept, network, ema_rate(0.998, step))
        step += 1
        if step % 200 == 0:
            print(f"{used:.0f} s, {step} steps of {args.batch}, loss {loss.item():.4f}", flush=True)
    return kept, step * args.batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--text", required=True, help="run of t2i-train text, whose frozen embeddings are the condition"
    )
    parser.add_argument("--scorer", help="run of t2i-train text that scores R-precision")
    parser.add_argument("--features", help="feature file of FID-768")
    parser.add_argument("--out", default="runs/flow")
    parser.add_argument("--seconds", type=float, default=400, help="CPU seconds of training")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=20, help="Euler steps of an image")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runtime.keep_freed_memory()
    args.dtype = runtime.pick_precision("auto", CPU)
    data, run = PackedDataset(args.data), Path(args.text)
    encoder = load_text(run / "text.safetensors", text_options(run))
    table = caption_table(encoder, data, CPU, torch.float32)
    scale = (table.mean(dim=0), 1 / table.std(dim=0).clamp_min(1e-6))
    network, seen = train(args, data, table, scale)
    flow = Flow(network, encoder, scale, args.size, args)
    began = time.process_time()
    result = images_of_pipeline(
        flow, data, count=args.count, features=args.features, scorer=Path(args.scorer) if args.scorer else None
    )
    print(result.table())
    cost = {"images_seen": seen, "parameters": sum(weight.numel() for weight in network.parameters())}
    print(json.dumps(cost | {"evaluation_cpu_seconds": round(time.process_time() - began)}))
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(result.figures | cost, indent=2) + "\n")
    rows = data.split("test")[:: max(1, len(data.split("test")) // 8)][:8]
    captions = [data.captions_of(int(row))[0] for row in rows]
    noise = runtime.noise((8, flow.config.noise_dim), CPU, 0, 0, "generate")
    drawn = flow.draw(noise.repeat(8, 1), encoder.embed(captions).repeat_interleave(8, dim=0))
    shown = to_uint8(drawn).reshape(8, 8, args.size, args.size, 3)
    save_image(grids.grid(shown, captions, side=args.size), folder / "grid.png")
    began = time.process_time()
    flow.draw(noise[:1], encoder.embed(captions[:1]))
    print(f"one image: {1000 * (time.process_time() - began):.0f} ms of CPU")


if __name__ == "__main__":
    main()
