"""One step of the modern GAN: discriminators on frozen features, on pixels or on both, and a generator that learns from them.

* Frozen ImageNet features score texture and parts, of photographs; averages of pixels say what all images share
  (`pixel_moments`). Of drawings the features know little: there the paper's discriminator scores reduced images
  (`pixel_losses`, docs/method.md).
* Fakes are generated once a step and run through the frozen trunk once: the discriminators read them detached, the generator's
  gradient goes back through the same pass. Order D then G.
* Some rows repeat another row's text with other noise (the diversity losses).
* Everything random is sampled before the update, from (seed, step, purpose); the update itself waits for nothing on a GPU.

Source: Projected GAN (Sauer et al. 2021) for the frozen features; Reed et al. 2016 for the three kinds of pair, at each tap and
on pixels.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.data.loader import Batch
from t2i.distributed import ALONE, Ranks
from t2i.models.build import generator
from t2i.models.efficientnet import EfficientNetLite0
from t2i.models.feature_discriminator import FeatureDiscriminator, FrozenTaps
from t2i.models.image_features import network
from t2i.models.modern import ModernGenerator
from t2i.training import modern_losses
from t2i.training.augment import DIFFAUGMENT, Augmentation, augment
from t2i.training.graph import Captured, Inputs, scalar_input
from t2i.training.guard import NonFiniteGuard
from t2i.training.optim import Move, adam, ema_rate, lerp_tensors, set_learning_rate, update_ema
from t2i.training.pixel_losses import RATE, PixelLosses
from t2i.training.pixel_moments import PixelMoments
from t2i.training.reference import Reference
from t2i.training.text_mixing import TextMixing
from t2i.training.text_source import FrozenText

BANK = 512  # texts that an image's own is told from, beside the batch's
REPEATED = 0.375  # part of a batch whose text repeats another row's
TEMPERATURE = 0.1
HEAD_DROPOUT = 0.2  # of pooled features, when the map to the text learns


class ModernStep:
    """One update of each discriminator and one of the generator.

    Args:
        config: Weights of the losses, widths, learning rates; whether to compile, and to capture a CUDA graph.
        text: Frozen embeddings.
        device: Where the networks live.
        precision: Of products and convolutions; the frozen trunk computes in float32.
        alignment_encoder: Image side of the joint embedding, frozen, where `config.alignment_weight` asks for it.
        ranks: The processes that share the batch; a batch is then this process's rows.
        reference: Of the data set; without it taps and text are taken as they are, and there is no bank of texts.

    Raises:
        ConfigError: the frozen features cannot be had; the message says what to install.
    """

    def __init__(
        self,
        config: TrainConfig,
        text: FrozenText,
        device: torch.device,
        precision: torch.dtype,
        alignment_encoder: nn.Module | None = None,
        ranks: Ranks = ALONE,
        reference: Reference | None = None,
    ) -> None:
        self.config, self.text, self.device, self.precision = config, text, device, precision
        self.alignment_encoder, self.ranks = alignment_encoder, ranks
        self.strength = Augmentation().lerp(DIFFAUGMENT, config.augmentation)
        self.ramp = config.condition_ramp
        made = generator(config)
        assert isinstance(made, ModernGenerator)
        self.generator = made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pixels = PixelLosses(config, device) if PixelLosses.wanted(config) else None
        self.taps: FrozenTaps | None = None
        self.feature_discriminator: FeatureDiscriminator | None = None
        self.text_head: nn.Linear | None = None
        if config.feature_weight:
            self._add_features()
        self.moments = PixelMoments().to(device) if config.moment_weight else None
        rows = ranks.rows(config.batch)
        # Made once: a copy from the host could not be captured in a CUDA graph.
        self.order = torch.tensor(modern_losses.repeated_rows(rows, int(rows * REPEATED)), device=device)
        self._fit(reference)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self._add_optimizers()
        self.guard = NonFiniteGuard([self.generator, *self._discriminators()], device, ranks)
        self._compile()

    def _add_features(self) -> None:
        trunk = network("efficientnet-lite0").to(self.device)
        assert isinstance(trunk, EfficientNetLite0)
        self.taps = FrozenTaps.of_images(trunk, self.config.size, self.config.feature_size).to(self.device)
        heads = FeatureDiscriminator(self.taps.channels, self.config.text.dim)
        self.feature_discriminator = heads.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.contrastive_weight:
            self.text_head = nn.Linear(2 * sum(self.taps.channels), self.config.text.dim).to(self.device)

    def _fit(self, reference: Reference | None) -> None:
        """Standardise taps and text by the data, and keep the bank's rows where the update draws from them."""
        self.bank: tuple[Tensor, Tensor] | None = None
        self.mixing: TextMixing | None = None
        if reference is None:
            return
        if self.taps is not None:
            self.taps.fit(reference.images.to(self.device))
        known = self.text.table[reference.captions.to(self.device)]
        self.generator.fit_text(known)
        self.bank = (known, reference.classes.to(self.device))
        if self.config.text_mixing:
            self.mixing = TextMixing.of(reference, self.text.table, self.config.text_mixing)

    def _add_optimizers(self) -> None:
        config = self.config
        recovery = self.pixels.recovery if self.pixels else None
        generating = [*self.generator.parameters(), *(recovery.parameters() if recovery else ())]
        self.generator_adam = adam(generating, config.learning_rate, config.beta1, config.beta2)
        self.feature_adam: torch.optim.Adam | None = None
        if self.feature_discriminator is not None:
            learned = [
                *self.feature_discriminator.parameters(),
                *(self.text_head.parameters() if self.text_head else ()),
            ]
            self.feature_adam = adam(learned, config.learning_rate, config.beta1, config.beta2)

    def _compile(self) -> None:
        config, on_gpu, alone = self.config, self.device.type == "cuda", self.ranks.world == 1
        self.draw: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor]]] = self.render
        self.move: Move = lerp_tensors
        if config.compile == "on" or (config.compile == "auto" and on_gpu):
            self.draw = runtime.compiled(self.render, "the generator")
            self.move = runtime.compiled(self.move, "the EMA")
            if pixels := self.pixels:
                pixels.score = runtime.compiled(pixels.score, "the pixel discriminator's update")  # type: ignore[method-assign]
            self.score_features = runtime.compiled(self.score_features, "the feature discriminator's update")  # type: ignore[method-assign]
            self.score_fakes = runtime.compiled(self.score_fakes, "the generator's update")  # type: ignore[method-assign]
        self.captured: Captured | None = None
        if on_gpu and alone and config.cuda_graph:
            self.captured = Captured(self.update, self.device)

    def _discriminators(self) -> list[nn.Module]:
        """List what scores: networks that learn, and averages that follow."""
        on_pixels = self.pixels.discriminator if self.pixels else None
        found = (on_pixels, self.feature_discriminator, self.text_head, self.moments)
        return [module for module in found if module is not None]

    def modules(self) -> dict[str, nn.Module]:
        """Name everything that learns or is kept, for checkpoints."""
        named: dict[str, nn.Module | None] = {"generator": self.generator, "ema": self.ema}
        if self.pixels is not None:
            named |= {"discriminator": self.pixels.discriminator, "recovery": self.pixels.recovery}
        for name in ("taps", "feature_discriminator", "text_head", "moments"):
            named[name] = getattr(self, name)
        return {name: module for name, module in named.items() if module is not None}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Name the optimizers, for checkpoints."""
        named: dict[str, torch.optim.Optimizer] = {"generator_adam": self.generator_adam}
        if self.pixels is not None:
            named["pixel_adam"] = self.pixels.optimizer
        return named if self.feature_adam is None else named | {"feature_adam": self.feature_adam}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set every network's learning rate; the pixel discriminator's is a part of it."""
        for name, optimizer in self.optimizers().items():
            set_learning_rate(optimizer, learning_rate * (RATE if name == "pixel_adam" else 1.0))

    def _uniform(self, columns: int, step: int, purpose: str) -> Tensor:
        """Draw this process's rows of (B, columns), uniform in 0..1."""
        source = runtime.generator(self.device, self.config.seed, step, purpose)
        return self.ranks.local_rows(torch.rand(self.config.batch, columns, generator=source, device=self.device))

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Collect all that an update reads and that no weight has a part in: the batch, and everything random."""
        names = ("images", "classes", "captions", "mismatched_captions")
        found: Inputs = {name: getattr(batch, name) for name in names}
        shape = (self.config.batch, self.config.noise_dim)
        found["noise"] = self.ranks.local_rows(runtime.noise(shape, self.device, self.config.seed, step, "generator"))
        columns = self.strength.columns
        found["real_augmentation"] = self._uniform(columns, step, "augment real") * 2 - 1
        found["fake_augmentation"] = self._uniform(columns, step, "augment fake") * 2 - 1
        found["text_weight"] = scalar_input(min(1.0, (step + 1) / self.ramp) if self.ramp else 1.0, self.captured)
        found["hard"] = self._uniform(1, step, "hard mismatch")[:, 0]
        if self.mixing is not None:
            found["mixing"] = self._uniform(4, step, "text mixing")
        if self.text_head is not None:
            kept = self._uniform(self.text_head.in_features, step, "head dropout") >= HEAD_DROPOUT
            found["head_mask"] = kept / (1 - HEAD_DROPOUT)
        if self.bank is not None:
            source = runtime.generator(self.device, self.config.seed, step, "bank")
            rows = torch.randint(len(self.bank[0]), (BANK,), generator=source, device=self.device)
            found["bank"], found["bank_classes"] = self.bank[0][rows], self.bank[1][rows]
        found["ema_rate"] = scalar_input(ema_rate(self.config.ema, step), self.captured)
        return found

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update all networks and the average; returns losses and a pixel discriminator's mean scores, on the device.

        An update whose loss or gradient is not finite is skipped and counted (`guard`).
        """
        inputs = self.inputs(batch, step)
        return self.update(inputs) if self.captured is None else self.captured(inputs)

    def update(self, inputs: Inputs) -> dict[str, Tensor]:
        """Do what `__call__` does, from collected inputs."""
        self.guard.begin()
        order = self.order
        with runtime.autocast(self.device, self.precision):
            text = self._embed(inputs, "captions", 0)  # (B, T)
            raw_fake_text = text[order]
            fakes, fake_taps = self.draw(
                inputs["noise"], self._weighed(raw_fake_text, inputs), inputs["fake_augmentation"]
            )
            with torch.no_grad():
                real_taps = self.read(inputs["images"], inputs["real_augmentation"])
            matching, mismatched = (
                self.generator.standardise(self._weighed(each, inputs))
                for each in (text, self._mismatched(inputs, text))
            )
            measured = self.update_discriminators(
                inputs, matching, mismatched, matching[order], fakes, real_taps, fake_taps
            )
            given: Inputs = {name: inputs[name] for name in ("bank", "bank_classes") if name in inputs}
            given |= {name: inputs[name] for name in ("noise", "images", "fake_augmentation")}
            given["classes"] = inputs["classes"][order]
            measured |= self.update_generator(given, raw_fake_text, matching[order], fakes, real_taps, fake_taps)
        self.guard.end()
        rate = inputs["ema_rate"]
        update_ema(self.ema, self.generator, rate if rate.device.type == "cuda" else float(rate), self.move)
        return measured

    def render(self, noise: Tensor, text: Tensor, augmentation: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Generate images (B, 3, S, S) float32, and read their taps."""
        images = self.generator(noise, text).float()
        return images, self.read(images, augmentation)

    def read(self, images: Tensor, augmentation: Tensor) -> list[Tensor]:
        """Read the taps of augmented images; none without frozen features."""
        return [] if self.taps is None else self.taps(augment(images, self.strength, augmentation))

    def _embed(self, inputs: Inputs, captions: str, first: int) -> Tensor:
        """Look up the texts (B, T) of captions, and mix them by the draws from column `first` on (`text_mixing`)."""
        text, mix = self.text(inputs[captions], None), self.mixing
        return text if mix is None else mix(text, inputs[captions][:, 0], inputs["mixing"][:, first : first + 2])

    def _mismatched(self, inputs: Inputs, text: Tensor) -> Tensor:
        """Choose a text of another class for each row: the sampler's, or the batch's most similar one."""
        other = self._embed(inputs, "mismatched_captions", 2)
        return modern_losses.hard_negatives(other, text, inputs["classes"], inputs["hard"] < self.config.hard_mismatch)

    def _weighed(self, text: Tensor, inputs: Inputs) -> Tensor:
        """Interpolate embeddings (B, T) with their mean while the weight of the text grows (`condition_ramp`)."""
        if not self.ramp:
            return text
        mean = self.generator.text_mean
        return torch.lerp(mean, text, inputs["text_weight"].to(text.device))

    def update_discriminators(
        self,
        inputs: Inputs,
        matching: Tensor,
        mismatched: Tensor,
        fake_text: Tensor,
        fakes: Tensor,
        real_taps: list[Tensor],
        fake_taps: list[Tensor],
    ) -> dict[str, Tensor]:
        """Update the discriminators of pixels and of features on the three kinds of pair."""
        measured: dict[str, Tensor] = {}
        if pixels := self.pixels:
            loss, scores = pixels.score(inputs, matching, mismatched, fakes.detach(), fake_text)
            pixels.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.guard.step(pixels.optimizer, loss)
            measured = {"d_loss": loss.detach()} | scores
        if self.feature_adam is not None:
            detached = [tap.detach() for tap in fake_taps]
            loss, parts = self.score_features(inputs, matching, mismatched, fake_text, real_taps, detached)
            self.feature_adam.zero_grad(set_to_none=True)
            loss.backward()
            self.guard.step(self.feature_adam, loss)
            measured |= parts
        return measured

    def score_features(
        self,
        inputs: Inputs,
        matching: Tensor,
        mismatched: Tensor,
        fake_text: Tensor,
        real_taps: list[Tensor],
        fake_taps: list[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score three kinds of pair by features, and fit real images to their texts: the loss, and its parts."""
        net = self.feature_discriminator
        assert net is not None
        # One pass: real images with their own and with wrong texts, fakes with their own.
        taps, rows = [torch.cat(pair) for pair in zip(real_taps, fake_taps, strict=True)], len(matching)
        texts = torch.stack([torch.cat([each, fake_text]) for each in (matching, mismatched)], dim=1)  # (2 B, 2, T)
        scores = net.score(net.features(taps), texts)
        loss = modern_losses.hinge_discriminator_loss(
            [each[:rows, 0] for each in scores],
            [each[:rows, 1] for each in scores],
            [each[rows:, 0] for each in scores],
            self.config.mismatch_weight,
        )
        measured = {"feature_loss": loss.detach()}
        if self.text_head is not None:
            seen = self.text_head(modern_losses.pooled(real_taps) * inputs["head_mask"])
            fit = self._contrast(seen, matching, inputs)
            loss = loss + fit
            measured["text_fit"] = fit.detach()
        return loss, measured

    def _contrast(self, seen: Tensor, text: Tensor, given: Inputs, standardised: bool = True) -> Tensor:
        """Contrast each image's own text with the batch's and the bank's."""
        bank, classes = given.get("bank"), given.get("bank_classes")
        if bank is None or classes is None:
            bank, classes = text[:0], given["classes"][:0]
        elif standardised:
            bank = self.generator.standardise(bank)
        return modern_losses.banked_contrastive_loss(seen, text, given["classes"], bank, classes, TEMPERATURE)

    def update_generator(
        self,
        given: Inputs,
        raw_fake_text: Tensor,
        fake_text: Tensor,
        fakes: Tensor,
        real_taps: list[Tensor],
        fake_taps: list[Tensor],
    ) -> dict[str, Tensor]:
        """Update the generator from the discriminators' scores."""
        learned = [weight for module in self._discriminators() for weight in module.parameters()]
        for weight in learned:  # their gradients would be computed and thrown away
            weight.requires_grad_(False)
        try:
            loss, measured = self.score_fakes(given, raw_fake_text, fake_text, fakes, real_taps, fake_taps)
            self.generator_adam.zero_grad(set_to_none=True)
            loss.backward()
            self.guard.step(self.generator_adam, loss)
        finally:  # a recording that failed runs as it is
            for weight in learned:
                weight.requires_grad_(True)
        return measured

    def score_fakes(
        self,
        given: Inputs,
        raw_fake_text: Tensor,
        fake_text: Tensor,
        fakes: Tensor,
        real_taps: list[Tensor],
        fake_taps: list[Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score generated images.

        Args:
            given: Noise, real images, classes of the texts, and the bank.
            raw_fake_text: (B, T) text embeddings that the images were generated from.
            fake_text: The same, standardised.
            fakes: (B, 3, S, S).
            real_taps: Of real images.
            fake_taps: Of `fakes`.

        Returns:
            The generator's loss, and its parts.
        """
        config = self.config
        parts = self.pixels.of_generator(given, fakes, fake_text) if self.pixels else {}
        if self.feature_discriminator is not None:
            heads = self.feature_discriminator
            scores = heads.score(heads.features(fake_taps), fake_text[:, None])
            parts["feature_g_loss"] = (config.feature_weight, modern_losses.hinge_generator_loss(scores))
        if self.text_head is not None:
            seen = self.text_head(modern_losses.pooled(fake_taps))
            parts["contrastive"] = (config.contrastive_weight, self._contrast(seen, fake_text, given))
        if self.alignment_encoder is not None:
            seen = self.alignment_encoder(fakes)
            parts["alignment"] = (
                config.alignment_weight,
                self._contrast(seen, raw_fake_text, given, standardised=False),
            )
        repeats = int(len(fakes) * REPEATED)
        if config.diversity_weight:
            diversity = modern_losses.diversity_of(fakes, given["images"], fake_taps, real_taps, repeats)
            parts["diversity"] = (config.diversity_weight, diversity)
        if weight := config.feature_diversity_weight:
            parts["feature_diversity"] = (weight, modern_losses.feature_diversity_loss(fake_taps, repeats))
        if self.moments is not None:
            parts["moments"] = (config.moment_weight, self.moments(fakes, given["images"]))
        total = torch.stack([weight * loss for weight, loss in parts.values()]).sum()
        return total, {name: loss.detach() for name, (_, loss) in parts.items()}
