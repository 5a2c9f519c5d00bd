"""A custom training loop with the parts of the package: GAN-CLS in thirty lines.

    python examples/own_loop.py data/kites 200 kites.png

To keep it short, the text encoder is a placeholder: the mean of a fixed random vector for each character.
"""

import sys
from pathlib import Path

import torch

import t2i
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Batch, Loader
from t2i.data.sampler import Sampler
from t2i.images import save_image, to_uint8
from t2i.plots import grids
from t2i.training import losses


def update(adam: torch.optim.Adam, loss: torch.Tensor) -> None:
    """Take one optimizer step."""
    adam.zero_grad()
    loss.backward()
    adam.step()


def main(data: str, steps: str, out: str) -> None:
    """Train for a number of steps, and write a grid of generated images."""
    torch.manual_seed(0)
    pack, size, rows = PackedDataset(data), 16, 16
    sampler = Sampler(pack, batch=rows, crop=size)
    loader = Loader(sampler, torch.device("cpu"), batch=rows, crop=size, characters=True)
    generator = t2i.Generator(size, width=16, noise_dim=16, text_dim=64, projection_dim=32)
    discriminator = t2i.Discriminator(size, width=16, text_dim=64, projection_dim=32)
    letters = torch.randn(256, 64)
    generator_adam = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return letters[ids[:, 0].long()].mean(dim=1) * 8  # (B, 1, 201) -> (B, 64)

    for step in range(int(steps)):
        batch: Batch = loader.batch(step)  # a pure function of (data, seed, step)
        assert batch.caption_ids is not None
        assert batch.mismatched_caption_ids is not None
        text, other = embed(batch.caption_ids), embed(batch.mismatched_caption_ids)
        fake = generator(torch.randn(rows, 16), text)
        real = discriminator.features(batch.images)  # once, for both texts
        loss = losses.discriminator_loss(
            discriminator.score(real, text), discriminator.score(real, other), discriminator(fake.detach(), text)
        )
        update(discriminator_adam, loss)
        update(generator_adam, losses.generator_loss(discriminator(fake, text)))
    generator.eval()
    with torch.no_grad():
        drawn = generator(torch.randn(rows, 16), text)
    shown = to_uint8(drawn)[:8, None]
    save_image(
        grids.grid(shown, [pack.captions_of(int(image))[0] for image in sampler.plan(step).image[:8]]), Path(out)
    )
    print(f"{steps} steps; images in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
