"""One step of the GAN: the discriminator on three kinds of pair, then the generator on its scores.

* D sees real+matching, real+mismatched and fake+matching, each kind with its own batch statistics; G learns from real texts
  and from interpolated ones. Order D then G, one to one, on the same texts.
* The mathematics is three functions: `generate`, `score_pairs`, `score_fakes`. They are what `--compile` compiles, whole
  (`fullgraph`, static shapes), with their backward passes; noise, text look-ups and optimizers stay outside.
* On a GPU everything between the inputs and the EMA is captured once as a CUDA graph and replayed (`graph.py`): nothing
  in it waits for the device or depends on a Python number that changes from step to step.

Source: Reed et al. 2016, Algorithm 1 and section 4.3; the released program's order and weights.
"""

import copy
import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.data.loader import Batch
from t2i.distributed import ALONE, Ranks
from t2i.models.build import discriminator, generator
from t2i.ops.synchronised_norm import synchronise
from t2i.training import losses
from t2i.training.counters import Counters
from t2i.training.graph import Captured, Inputs, scalar_input
from t2i.training.guard import NonFiniteGuard
from t2i.training.optim import Move, adam, ema_rate, lerp_tensors, set_learning_rate, update_ema
from t2i.training.stages import Stages
from t2i.training.text_source import TextSource


class GanStep:
    """One update of the discriminator and one of the generator.

    Args:
        config: Weights of the losses, widths, learning rates; whether to compile, and to capture a CUDA graph.
        text: Where text embeddings come from; a learned encoder is updated with the discriminator, whose matching score
            is what tells texts apart, and the generator takes its embeddings as given.
        device: Where the networks live.
        precision: Of products and convolutions.
        alignment_encoder: Image side of the joint embedding, frozen, where `config.alignment_weight` asks for it.
        ranks: The processes that share the batch; a batch is then this process's rows.
    """

    def __init__(
        self,
        config: TrainConfig,
        text: TextSource,
        device: torch.device,
        precision: torch.dtype,
        alignment_encoder: nn.Module | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.text, self.device, self.precision = config, text, device, precision
        self.alignment_encoder, self.ranks = alignment_encoder, ranks
        layout = torch.channels_last
        self.generator = generator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.discriminator = discriminator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        if config.sync_batch_norm:
            synchronise(self.generator, ranks, device)
            synchronise(self.discriminator, ranks, device)
        self.stages = Stages(config.realism_steps, config.realism_goal).to(device) if config.stages else None
        self.recovery: nn.Linear | None = None
        if config.recovery_weight:
            self.recovery = nn.Linear(self.discriminator.to_logit.weight[0].numel(), config.noise_dim).to(device)
        learned = list(text.encoder.parameters()) if text.learned and text.encoder is not None else []
        generating = [*self.generator.parameters(), *(self.recovery.parameters() if self.recovery else ())]
        self.generator_adam = adam(generating, config.learning_rate, config.beta1, config.beta2)
        self.discriminator_adam = adam(
            [*self.discriminator.parameters(), *learned], config.learning_rate, config.beta1, config.beta2
        )
        guarded = [self.generator, self.discriminator, *([] if self.stages is None else [self.stages])]
        self.guard = NonFiniteGuard(guarded, device, ranks)
        on_gpu = device.type == "cuda"
        # One pass of D over all kinds of images: fewer, larger launches on a GPU; on a CPU joining only costs a copy.
        self.joined = on_gpu and not config.sync_batch_norm
        alone = ranks.world == 1  # an exchange between processes can be neither compiled whole nor captured
        self.generate: Callable[[Tensor, Tensor], Tensor] = self.generator
        self.counters = Counters(self._batches() if on_gpu and self.stages is None else {})
        self.move: Move = lerp_tensors
        if config.compile == "on" or (config.compile == "auto" and on_gpu):
            self.generate = runtime.compiled(self.generate, "the generator")
            self.move = runtime.compiled(self.move, "the EMA")
            if alone or not config.sync_batch_norm:
                self.score_pairs = runtime.compiled(self.score_pairs, "the discriminator's update")  # type: ignore[method-assign]
            if alone:
                self.score_fakes = runtime.compiled(self.score_fakes, "the generator's update")  # type: ignore[method-assign]
        self.captured: Captured | None = None
        if on_gpu and alone and config.cuda_graph and self.stages is None and text.inputs is None:
            self.captured = Captured(lambda inputs: self.update(inputs, config.mismatch_weight), device)

    def _batches(self) -> dict[_BatchNorm, int]:
        """Count the batches that each normalisation sees in a step."""
        config, net = self.config, self.discriminator
        kinds = 3 if config.mismatch_weight and config.mismatch == "image" else 2
        pairs = 3 if config.mismatch_weight else 2
        generated = 1 if config.reuse_fakes else 2
        found = {norm: generated for norm in self.generator.modules() if isinstance(norm, _BatchNorm)}
        found |= {norm: kinds + 1 for norm in net.modules() if isinstance(norm, _BatchNorm)}
        return found | {norm: pairs + 1 for norm in (net.text_norm, net.join_norm) if norm is not None}

    def modules(self) -> dict[str, nn.Module]:
        """Name everything that is trained or tracked, for checkpoints."""
        named: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema,
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
        """Sample this process's rows: of the joined batch's (B, Z), and of the (B/2, Z) of interpolated texts behind them."""
        shape = (rows * self.ranks.world, self.config.noise_dim)
        joined = runtime.noise(shape, self.device, self.config.seed, step, purpose)
        return torch.cat([self.ranks.local_rows(some) for some in joined.split(self.config.batch)])

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Collect all that an update reads besides the networks: the batch, the noise and the rate of the EMA."""
        named = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        found: Inputs = {name: value for name, value in named.items() if value is not None}
        count = len(batch.captions)
        between = len(batch.interpolation_partner) if self.config.interpolation_weight else 0
        found["noise"] = self._noise(count + between, step, "generator")
        if not self.config.reuse_fakes:
            found["discriminator_noise"] = self._noise(count, step, "discriminator")
        found["ema_rate"] = scalar_input(ema_rate(self.config.ema, step), self.captured)
        return found

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update both networks and the EMA; returns losses and the mean score of each kind of pair, on the device.

        An update whose loss or gradient is not finite is skipped and counted (`guard`).
        """
        inputs = self.inputs(batch, step)
        if self.captured is not None:
            return self.captured(inputs)
        mismatch = self.config.mismatch_weight if self.stages is None or self.stages.matching(step) else 0.0
        return self.update(inputs, mismatch, step)

    def update(self, inputs: Inputs, mismatch_weight: float, step: int = 0) -> dict[str, Tensor]:
        """Do what `__call__` does, from collected inputs; `step` is for staged training alone."""
        self.guard.begin()
        with runtime.autocast(self.device, self.precision), self.counters.together():
            text = self.text(inputs["captions"], inputs.get("caption_ids"))  # (B, T)
            given = text.detach()
            texts, count = given, len(given)
            if self.config.interpolation_weight:
                partner, weight = inputs["interpolation_partner"], inputs["interpolation_weight"]
                between = losses.interpolate(self.ranks.gather(given), partner, weight, self.ranks.rank * len(partner))
                texts = torch.cat([given, between])  # (1.5 B, T)
            if self.config.reuse_fakes:
                generated = self.generate(inputs["noise"], texts)
                fakes = generated[:count].detach()
            else:
                with torch.no_grad():
                    fakes = self.generate(inputs["discriminator_noise"], given)
            measured = self.update_discriminator(inputs, text, fakes, mismatch_weight)
            if self.stages is not None:
                scores = self.ranks.mean({name: measured[name] for name in ("matching", "fake")})
                self.stages.observe(step, scores["matching"], scores["fake"])
            if not self.config.reuse_fakes:
                generated = self.generate(inputs["noise"], texts)
            measured |= self.update_generator(generated, inputs["noise"], texts, count, inputs["classes"])
        self.guard.end()
        rate = inputs["ema_rate"]
        update_ema(self.ema, self.generator, rate if rate.device.type == "cuda" else float(rate), self.move)
        return measured

    def update_discriminator(
        self, inputs: Inputs, text: Tensor, fakes: Tensor, mismatch_weight: float
    ) -> dict[str, Tensor]:
        """Update the discriminator (and a learned text encoder) on the three kinds of pair."""
        by_image, wrong, other = self.config.mismatch == "image", None, None
        if mismatch_weight and by_image:
            wrong = inputs["mismatched_images"]
        elif mismatch_weight:
            other = self.text(inputs["mismatched_captions"], inputs.get("mismatched_caption_ids"))
        loss, means = self.score_pairs(inputs["images"], wrong, text, other, fakes, mismatch_weight)
        self.discriminator_adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.discriminator_adam, loss)
        return {"d_loss": loss.detach()} | means

    def score_pairs(
        self, images: Tensor, wrong: Tensor | None, text: Tensor, other: Tensor | None, fakes: Tensor, weight: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score the three kinds of pair, each with its own batch statistics.

        Args:
            images: (B, 3, S, S) real images.
            wrong: (B, 3, S, S) images of other classes, where these make the mismatch.
            text: (B, T) of the real images.
            other: (B, T) texts of other classes, where these make the mismatch.
            fakes: (B, 3, S, S) generated from `text`.
            weight: Of the mismatched pair.

        Returns:
            The loss, and by kind the mean probability () that it is a real pair, without a gradient.
        """
        net, seen = self.discriminator, [images, *([] if wrong is None else [wrong]), fakes]
        pairs = {"matching": (0, text)}  # which of the images, and the text
        if wrong is not None or other is not None:
            pairs["mismatched"] = (0 if wrong is None else 1, text if other is None else other)
        pairs["fake"] = (len(seen) - 1, text)
        if self.joined:
            features = net.features(torch.cat(seen), len(seen))
            texts = torch.cat([part for _, part in pairs.values()])
            kinds = [kind for kind, _ in pairs.values()] if len(pairs) > len(seen) else []
            scores = dict(zip(pairs, net.score(features, texts, len(pairs), kinds).chunk(len(pairs)), strict=True))
        else:
            by_kind = [net.features(some) for some in seen]
            scores = {name: net.score(by_kind[kind], part) for name, (kind, part) in pairs.items()}
        means = torch.sigmoid(torch.stack(list(scores.values())).detach()).mean(1)  # all kinds at once
        loss = losses.discriminator_loss(scores["matching"], scores.get("mismatched"), scores["fake"], weight)
        return loss, dict(zip(scores, means, strict=True))

    def update_generator(
        self, generated: Tensor, noise: Tensor, texts: Tensor, count: int, classes: Tensor
    ) -> dict[str, Tensor]:
        """Update the generator by the discriminator's scores."""
        for weight in self.discriminator.parameters():  # their gradients would be computed and thrown away
            weight.requires_grad_(False)
        try:
            loss, measured = self.score_fakes(generated, noise, texts, count, classes)
            self.generator_adam.zero_grad(set_to_none=True)
            loss.backward()
        finally:  # a recording that fails is followed by a step that is run
            for weight in self.discriminator.parameters():
                weight.requires_grad_(True)
        self.guard.step(self.generator_adam, loss)
        return measured

    def score_fakes(
        self, generated: Tensor, noise: Tensor, texts: Tensor, count: int, classes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score fakes of real texts (the first `count` rows) and of interpolated ones in one pass.

        Args:
            generated: (1.5 B, 3, S, S), or (B, 3, S, S) without interpolation.
            noise: (1.5 B, Z) they were generated from.
            texts: (1.5 B, T) likewise.
            count: B.
            classes: (B,) of the real texts.

        Returns:
            The generator's loss, and its parts.
        """
        features = self.discriminator.features(generated)
        scores = self.discriminator.score(features, texts)
        between = scores[count:] if len(texts) > count else None
        loss = losses.generator_loss(scores[:count], between, self.config.interpolation_weight)
        measured = {"g_loss": loss.detach()}
        if self.alignment_encoder is not None:
            image_codes, text_codes = (
                self.ranks.gather(rows) for rows in (self.alignment_encoder(generated[:count]), texts[:count])
            )  # (B, T) each
            alignment = losses.contrastive_loss(image_codes, text_codes, classes=self.ranks.gather(classes))
            loss = loss + self.config.alignment_weight * alignment
            measured["alignment"] = alignment.detach()
        if self.recovery is not None:
            recovery = F.mse_loss(self.recovery(features.flatten(1)).float(), noise)
            loss = loss + self.config.recovery_weight * recovery
            measured["recovery"] = recovery.detach()
        return loss, measured
