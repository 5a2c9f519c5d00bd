"""The usual training step: three passes of D, float32, eager.

Written from how public PyTorch implementations of Reed et al. 2016 and of GAN-CLS describe theirs: `nn.Sequential` networks,
the text embedding repeated over the map and concatenated, `BCELoss` on a sigmoid, the discriminator run on the right, the
wrong and the fake pair one after the other, noise drawn anew for the generator, every gradient computed that autograd can
compute, plain Adam. The networks have t2i's sizes and take t2i's weights (`load`), so that losses can be compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import t2i


def _down(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, 2, 1, bias=False)


def _up(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)


class _Residual(nn.Module):
    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            activation,
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            activation,
            nn.Conv2d(inner, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.branch(x))


class UsualGenerator(nn.Module):
    """The released program's generator, layer by layer."""

    def __init__(self, width: int = 128, noise: int = 100, text: int = 1024, projection: int = 128) -> None:
        super().__init__()
        w = width
        self.text = nn.Sequential(nn.Linear(text, projection), nn.LeakyReLU(0.2))
        self.net = nn.Sequential(
            nn.ConvTranspose2d(noise + projection, 8 * w, 4, 1, 0, bias=False),
            nn.BatchNorm2d(8 * w),
            _Residual(8 * w, nn.ReLU()),
            _up(8 * w, 4 * w),
            nn.BatchNorm2d(4 * w),
            _Residual(4 * w, nn.ReLU()),
            _up(4 * w, 2 * w),
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            _up(2 * w, w),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            _up(w, 3),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        x = torch.cat([noise, self.text(text)], dim=1)
        return self.net(x[:, :, None, None])


class UsualDiscriminator(nn.Module):
    """The released program's discriminator, layer by layer."""

    def __init__(self, width: int = 64, text: int = 1024, projection: int = 128) -> None:
        super().__init__()
        w = width
        self.net = nn.Sequential(
            _down(3, w),
            nn.LeakyReLU(0.2),
            _down(w, 2 * w),
            nn.BatchNorm2d(2 * w),
            nn.LeakyReLU(0.2),
            _down(2 * w, 4 * w),
            nn.BatchNorm2d(4 * w),
            _down(4 * w, 8 * w),
            nn.BatchNorm2d(8 * w),
            _Residual(8 * w, nn.LeakyReLU(0.2)),
        )
        self.text = nn.Sequential(nn.Linear(text, projection), nn.BatchNorm1d(projection), nn.LeakyReLU(0.2))
        self.judge = nn.Sequential(
            nn.Conv2d(8 * w + projection, 8 * w, 1, bias=False),
            nn.BatchNorm2d(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 1, 4, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        x = self.net(images)
        repeated = self.text(text)[:, :, None, None].repeat(1, 1, x.shape[2], x.shape[3])
        return self.judge(torch.cat([x, repeated], dim=1)).flatten()


def load(usual: nn.Module, ours: nn.Module) -> None:
    """Copy t2i's weights over: both list the same tensors, in an order of their own, told apart by shape and place."""
    theirs, mine = dict(usual.state_dict()), dict(ours.state_dict())
    order = sorted(mine, key=_place)
    names = [name for name in theirs if not name.startswith("text")] + [n for n in theirs if n.startswith("text")]
    assert len(names) == len(order), (len(names), len(order))
    for name, source in zip(names, order, strict=True):
        assert theirs[name].shape == mine[source].shape, (name, source)
    usual.load_state_dict({name: mine[source] for name, source in zip(names, order, strict=True)})


def _place(name: str) -> tuple[int, int]:
    """Order t2i's names as the sequential network has them."""
    generator = [
        "project.",
        "project_norm",
        "project_residual",
        "up.0",
        "up_norm.0",
        "up_residual",
        "up.1",
        "up_norm.1",
    ]
    generator += ["up.2", "up_norm.2", "to_rgb"]
    discriminator = ["down.0", "down.1", "down_norm.0", "down.2", "down_norm.1", "down.3", "down_norm.2"]
    discriminator += ["residual", "join.", "join_norm", "to_logit"]
    inner = ["reduce.", "reduce_norm", "middle.", "middle_norm", "expand.", "expand_norm"]
    prefixes = [*generator, *discriminator, "text.", "text_norm"]
    layer = next(place for place, prefix in enumerate(prefixes) if name.startswith(prefix))
    within = name[len(prefixes[layer]) :].lstrip(".")
    part = next((place for place, prefix in enumerate(inner) if within.startswith(prefix)), 0)
    return layer, part


class UsualStep:
    """One update of D (right, wrong, fake) and one of G.

    Args:
        generator: t2i's, whose weights are copied.
        discriminator: Likewise.
        learning_rate: Adam's.
    """

    def __init__(
        self, generator: "t2i.Generator", discriminator: "t2i.Discriminator", learning_rate: float = 2e-4
    ) -> None:
        device = next(generator.parameters()).device
        width, shrink = generator.to_rgb.weight.shape[0], discriminator.down[0].weight.shape[0]
        self.generator = UsualGenerator(width, generator.noise_dim, generator.text_dim, generator.text.out_features)
        self.discriminator = UsualDiscriminator(shrink, discriminator.text_dim, discriminator.text.out_features)
        load(self.generator, generator)
        load(self.discriminator, discriminator)
        self.generator.to(device)
        self.discriminator.to(device)
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), lr=learning_rate, betas=(0.5, 0.999))
        self.discriminator_adam = torch.optim.Adam(
            self.discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.999)
        )

    def __call__(
        self, images: Tensor, wrong_text: Tensor, text: Tensor, noise_d: Tensor, noise_g: Tensor
    ) -> tuple[float, float]:
        """Run one step.

        Args:
            images: (B, 3, 64, 64) in [-1, 1].
            wrong_text: (B, T) of other classes: the mismatched pair is (image, wrong text), as in the paper's algorithm.
            text: (B, T).
            noise_d: (B, Z) of the fakes that D sees.
            noise_g: (B, Z) of the fakes that G learns from.

        Returns:
            Losses of D and of G.
        """
        ones, zeros = torch.ones(len(images), device=images.device), torch.zeros(len(images), device=images.device)
        self.discriminator.zero_grad()
        right = F.binary_cross_entropy(self.discriminator(images, text), ones)
        wrong = F.binary_cross_entropy(self.discriminator(images, wrong_text), zeros)
        fakes = self.generator(noise_d, text).detach()
        fake = F.binary_cross_entropy(self.discriminator(fakes, text), zeros)
        loss_d = right + 0.5 * (wrong + fake)
        loss_d.backward()
        self.discriminator_adam.step()

        self.generator.zero_grad()
        fakes = self.generator(noise_g, text)
        loss_g = F.binary_cross_entropy(self.discriminator(fakes, text), ones)
        loss_g.backward()
        self.generator_adam.step()
        return loss_d.item(), loss_g.item()
