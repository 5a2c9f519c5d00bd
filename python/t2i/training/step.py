"""One step of the GAN: the discriminator on three kinds of pair, then the generator on its verdict.

* D sees real+matching, real+mismatched and fake+matching, each kind with its own batch statistics; G learns from real texts
  and from interpolated ones. Order D then G, one to one, on the same texts.
* The mathematics is three functions: `draw`, `judge_pairs`, `judge_fakes`. They are what `--compile` compiles, whole
  (`fullgraph`, static shapes); noise, text look-ups and optimizers stay outside.
* On a GPU everything between a batch and the average can be captured once as a CUDA graph and replayed (`graph.py`): nothing
  in it waits for the device or depends on a Python number that changes.

Source: Reed et al. 2016, Algorithm 1 and section 4.3; the released program's order and weights.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i import losses, runtime
from t2i.config import TrainConfig
from t2i.data import Batch
from t2i.distributed import ALONE, Ranks
from t2i.encoders import CharCnnRnn, ImageEncoder
from t2i.networks import Discriminator, Generator
from t2i.ops.synchronised_norm import synchronise
from t2i.optim import adam, average_rate, set_learning_rate, update_average
from t2i.training.guard import Guard
from t2i.training.stages import Stages


class TextSource(Protocol):
    """Where a batch's text embeddings come from."""

    encoder: CharCnnRnn | None
    learned: bool

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Embed (B, K) caption rows, or their characters (B, K, 201), averaged over K: (B, T)."""
        ...


class FrozenText:
    """Embeddings computed once: a table (M, T) with a row a caption."""

    learned = False

    def __init__(self, table: Tensor, encoder: CharCnnRnn | None) -> None:
        self.table, self.encoder = table, encoder

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Look (B, K) rows up and average: (B, T)."""
        return self.table[rows].mean(dim=1)


class LearnedText:
    """Embeddings of an encoder that learns with the GAN."""

    learned = True

    def __init__(self, encoder: CharCnnRnn) -> None:
        self.encoder: CharCnnRnn | None = encoder

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Encode characters (B, K, 201) and average: (B, T)."""
        assert self.encoder is not None
        assert ids is not None
        count, captions, length = ids.shape
        embedded: Tensor = self.encoder(ids.reshape(-1, length))
        return embedded.view(count, captions, -1).mean(dim=1)


def generator(config: TrainConfig) -> Generator:
    """Make the generator that the settings describe, with random weights."""
    return Generator(config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim)


def discriminator(config: TrainConfig) -> Discriminator:
    """Make the discriminator that the settings describe, with random weights."""
    return Discriminator(
        config.size,
        config.discriminator_width,
        config.text.dim,
        config.projection_dim,
        config.discriminator_text_norm,
        config.discriminator_late_activation,
    )


class GanStep:
    """One update of the discriminator and one of the generator.

    Args:
        config: Weights of the losses, widths, learning rates.
        text: Where text embeddings come from; a learned encoder is updated with the discriminator, whose matching score
            is what tells texts apart, and the generator takes its embeddings as given.
        device: Where the networks live.
        precision: Of products and convolutions.
        judge: Image side of the joint embedding, frozen, where `config.alignment_weight` asks for it.
        ranks: The processes that share the batch; a batch is then this process's rows.
    """

    def __init__(
        self,
        config: TrainConfig,
        text: TextSource,
        device: torch.device,
        precision: torch.dtype,
        judge: ImageEncoder | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.text, self.device, self.precision, self.judge = config, text, device, precision, judge
        self.ranks = ranks
        layout = torch.channels_last
        self.generator = generator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.discriminator = discriminator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        if config.sync_batch_norm:
            synchronise(self.generator, ranks)
            synchronise(self.discriminator, ranks)
        self.stages = Stages(config.realism_steps, config.realism_goal).to(device) if config.stages else None
        self.recovery: nn.Linear | None = None
        if config.recovery_weight:
            self.recovery = nn.Linear(self.discriminator.score.weight[0].numel(), config.noise_dim).to(device)
        learned = list(text.encoder.parameters()) if text.learned and text.encoder is not None else []
        generating = [*self.generator.parameters(), *(self.recovery.parameters() if self.recovery else ())]
        self.generator_adam = adam(generating, config.learning_rate, config.beta1, config.beta2)
        self.discriminator_adam = adam(
            [*self.discriminator.parameters(), *learned], config.learning_rate, config.beta1, config.beta2
        )
        kept = [self.generator, self.discriminator, *([] if self.stages is None else [self.stages])]
        self.guard = Guard(kept, device, ranks)

    def modules(self) -> dict[str, nn.Module]:
        """Name everything that learns or is kept, for checkpoints."""
        named: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
        }
        if self.text.learned and self.text.encoder is not None:
            named["text"] = self.text.encoder
        if self.stages is not None:
            named["stages"] = self.stages
        if self.recovery is not None:
            named["recovery"] = self.recovery
        return named

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Name the optimizers, for checkpoints."""
        return {"generator_adam": self.generator_adam, "discriminator_adam": self.discriminator_adam}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set both networks' learning rate."""
        set_learning_rate(self.generator_adam, learning_rate)
        set_learning_rate(self.discriminator_adam, learning_rate)

    def _noise(self, rows: int, step: int, purpose: str) -> Tensor:
        """Draw this process's rows: of the joined batch's (B, Z), and of the (B/2, Z) of interpolated texts behind them."""
        shape = (rows * self.ranks.world, self.config.noise_dim)
        joined = runtime.noise(shape, self.device, self.config.seed, step, purpose)
        return torch.cat([self.ranks.part(some) for some in joined.split(self.config.batch)])

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update both networks and the average; returns losses and the mean score of each kind of pair, on the device.

        An update whose loss or gradient is not finite is skipped and counted (`guard`).
        """
        self.guard.begin()
        with runtime.autocast(self.device, self.precision):
            text = self.text(batch.captions, batch.caption_ids)  # (B, T)
            given = text.detach()
            texts = given
            if self.config.interpolation_loss:
                partner, weight = batch.interpolation_partner, batch.interpolation_weight
                between = losses.interpolate(self.ranks.gather(given), partner, weight, self.ranks.rank * len(partner))
                texts = torch.cat([given, between])  # (1.5 B, T)
            count = len(given)
            noise = self._noise(len(texts), step, "generator")
            if self.config.reuse_fakes:
                drawn = self.generator(noise, texts)
                fakes = drawn[:count].detach()
            else:
                with torch.no_grad():
                    fakes = self.generator(self._noise(count, step, "discriminator"), given)
            mismatch = self.config.mismatch_weight if self.stages is None or self.stages.matching(step) else 0.0
            measured = self.update_discriminator(batch, text, fakes, mismatch)
            if self.stages is not None:
                scores = self.ranks.mean({name: measured[name] for name in ("matching", "fake")})
                self.stages.observe(step, scores["matching"], scores["fake"])
            if not self.config.reuse_fakes:
                drawn = self.generator(noise, texts)
            measured |= self.update_generator(drawn, noise, texts, count, batch.classes)
        self.guard.end()
        update_average(self.average, self.generator, self.config.ema, step)
        return measured

    def update_discriminator(
        self, batch: Batch, text: Tensor, fakes: Tensor, mismatch_weight: float
    ) -> dict[str, Tensor]:
        """Learn to tell the three kinds of pair apart: each in its own pass, with its own batch statistics."""
        net, config = self.discriminator, self.config
        real = net.features(batch.images)
        matching = net.judge(real, text)
        mismatched = None
        if mismatch_weight:
            if config.mismatch == "image":
                assert batch.mismatched_images is not None
                mismatched = net(batch.mismatched_images, text)
            else:
                other = self.text(batch.mismatched_captions, batch.mismatched_caption_ids)
                mismatched = net.judge(real, other)
        fake = net(fakes, text)
        loss = losses.discriminator_loss(matching, mismatched, fake, mismatch_weight)
        self.discriminator_adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.discriminator_adam, loss)
        scores = {"matching": matching, "fake": fake} | ({} if mismatched is None else {"mismatched": mismatched})
        return {"d_loss": loss.detach()} | {k: torch.sigmoid(v.detach()).mean() for k, v in scores.items()}

    def update_generator(
        self, drawn: Tensor, noise: Tensor, texts: Tensor, count: int, classes: Tensor
    ) -> dict[str, Tensor]:
        """Learn to pass: one discriminator pass over fakes of real texts (the first `count`) and interpolated ones."""
        for weight in self.discriminator.parameters():  # their gradients would be computed and thrown away
            weight.requires_grad_(False)
        features = self.discriminator.features(drawn)
        scores = self.discriminator.judge(features, texts)
        between = scores[count:] if len(texts) > count else None
        loss = losses.generator_loss(scores[:count], between, self.config.interpolation_loss)
        measured = {"g_loss": loss.detach()}
        if self.judge is not None:
            seen, said = (self.ranks.gather(rows) for rows in (self.judge(drawn[:count]), texts[:count]))  # (B, T) each
            alignment = losses.contrastive_loss(seen, said, classes=self.ranks.gather(classes))
            loss = loss + self.config.alignment_weight * alignment
            measured["alignment"] = alignment.detach()
        if self.recovery is not None:
            recovery = F.mse_loss(self.recovery(features.flatten(1)).float(), noise)
            loss = loss + self.config.recovery_weight * recovery
            measured["recovery"] = recovery.detach()
        self.generator_adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.generator_adam, loss)
        for weight in self.discriminator.parameters():
            weight.requires_grad_(True)
        return measured
