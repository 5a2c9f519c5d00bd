"""A critic of averages: the mean image and the mean square of each pixel must be those of real images.

Discriminators score one image at a time; what all generated images share, such as borders darker and centres brighter than in
photographs, shows in averages over hundreds of them. What that gains, and when, is in `docs/method.md`.

Source: generative feature matching networks (dos Santos et al. 2019): moments of generated and of real images by moving
averages, because those of one batch are mostly noise; here of pixels.
"""

import torch
from torch import Tensor, nn

from t2i.images import averaged

SIDE = 16  # pixels of the reduced images
RATE = 0.02  # of generated images' averages: about 50 steps count


class PixelMoments(nn.Module):
    """Means of reduced images and of their squares, (2, 3, 16, 16): of recent generated ones, and of all real ones so far.

    There is nothing to learn by gradient: the averages are buffers, so that they are saved, averaged over processes and put
    back after a skipped step as those of batch normalisation are.
    """

    fake: Tensor
    real: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fake", torch.zeros(2, 3, SIDE, SIDE))
        self.register_buffer("real", torch.zeros(2, 3, SIDE, SIDE))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, fakes: Tensor, images: Tensor) -> Tensor:
        """Return the generator's loss by the averages of the steps before, and take this step into them.

        The gradient of each generated image is that of the squared distance of the averages,
        |m - m_real|^2 / 2 + |s - s_real|^2 / 4 with m of pixels and s of their squares, as if the averages were its own.

        Args:
            fakes: (B, 3, S, S) generated, S a multiple of 16.
            images: (N, 3, S, S) real.

        Returns:
            Scalar, 0 in the first step; its value is no distance and may be negative.
        """
        x, difference = averaged(fakes.float(), SIDE), self.fake - self.real
        loss = (difference[0] * x + difference[1] * x.square() / 2).sum(dim=(1, 2, 3)).mean()
        self._follow(x.detach(), averaged(images.float(), SIDE))
        return loss

    @torch.no_grad()
    def _follow(self, fakes: Tensor, images: Tensor) -> None:
        rate = 1 / (self.steps + 1)  # of a plain mean, which real images keep
        for average, x, follow in ((self.fake, fakes, rate.clamp_min(RATE)), (self.real, images, rate)):
            average.lerp_(torch.stack([x.mean(dim=0), x.square().mean(dim=0)]), follow)
        self.steps.add_(1)
