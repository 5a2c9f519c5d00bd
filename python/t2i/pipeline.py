"""A trained model as one object: sentences in, pictures out."""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from t2i import _native, runtime
from t2i.config.options import LEARNED, TrainConfig
from t2i.errors import CheckpointError, ConfigError
from t2i.images import to_pil
from t2i.models.encoders import StyleEncoder, blurred
from t2i.models.paper import Generator
from t2i.noise import slerp, truncated
from t2i.prepare.style_images import read_pictures
from t2i.pretrained import folder as saved
from t2i.pretrained import hub
from t2i.pretrained.card import model_card
from t2i.text.build import text_encoder
from t2i.text.protocol import TextEncoder
from t2i.weights import load_weights

# Sides of the blurs that a photograph's style is read at. Where a blur's grid falls says nothing about the style: the mean of
# five readings told the styles of blossoms of training classes apart with an area of 0.88, a single one with 0.85.
BLURS = (4, 5, 6, 7, 8)


@dataclass
class PipelineOutput:
    """What a pipeline returns: `images`, caption by caption, `count` of each; and the same as a tensor."""

    images: list[Image.Image]
    tensor: Tensor  # (captions * count, 3, size, size) float32 in [-1, 1]


def model_hash(folder: Path) -> str:
    """Hash the model of a run: a style encoder inverts this generator, on texts of this encoder, and no other."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def checked(captions: str | Sequence[str], count: int) -> list[str]:
    """Take one sentence or several as a list; ConfigError for an empty one, or a count below 1."""
    several = [captions] if isinstance(captions, str) else list(captions)
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}")
    for caption in several:
        if not caption.strip():
            raise ConfigError("a caption is empty: say what to draw, as in 'a flower with five red petals'")
    return several


class Pipeline:
    """Draw pictures of sentences with a trained generator and its text encoder.

    Args:
        generator: Draws.
        encoder: Embeds captions; None where the generator was trained on embeddings from a file.
        config: The settings they were trained with.
        folder: The run folder, where a style encoder is looked for when it is first needed.

    Example:
        >>> pipe = Pipeline.from_pretrained("runs/blossoms")                  # doctest: +SKIP
        >>> pipe(["a flower with five red petals and a yellow centre"]).images[0].save("a.png")  # doctest: +SKIP
    """

    def __init__(
        self, generator: Generator, encoder: TextEncoder | None, config: TrainConfig, folder: Path | None = None
    ) -> None:
        self.generator, self.config = generator.eval(), config
        self.encoder = encoder if encoder is None else encoder.eval()
        self.device = next(generator.parameters()).device
        self.folder = folder
        self._style: tuple[StyleEncoder, bool] | None = None  # and whether it reads photographs blurred

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "cpu", *, revision: str | None = None, token: str | None = None
    ) -> "Pipeline":
        """Load a run folder, a folder of `save_pretrained`, or a model of the Hugging Face Hub.

        A folder may come from a stranger: it is looked at before it is read (`t2i.saved`), and holds no pickle.

        Args:
            folder: A folder on this machine; where there is none, owner/name on the Hub (extra: t2i[hub]).
            device: cpu, cuda or cuda:N.
            revision: Of the Hub: branch, tag or commit.
            token: Of the Hub, for private models.

        Raises:
            CheckpointError: a file is missing, damaged, of another shape, or not a plain file; no such model on the Hub.
            ConfigError: the Hub is asked for and the extra is not installed.
        """
        if isinstance(folder, str) and not Path(folder).exists() and hub.is_name(folder):
            folder = hub.download(folder, revision, token)
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"no such run folder: {folder}; t2i-train makes one")
        for each in saved.FILES:
            saved.plain_file(folder, each)
        config = saved.read_settings(folder)
        path = saved.plain_file(folder, "model.safetensors")
        if not path.exists():
            raise CheckpointError(
                f"{folder} has no model.safetensors yet: training has not reached its first checkpoint"
            )
        text, tensors = config.text, saved.names(path)
        strange = next((name for name in sorted(tensors) if not name.startswith(("generator.", "text."))), None)
        if strange is not None:
            raise CheckpointError(f"{path} has a tensor {strange!r}: a model's are generator.* and text.*")
        generator = saved.checked_network(
            path, "generator",
            lambda: Generator(config.size, config.generator_width, config.noise_dim, text.dim, config.projection_dim),
        )  # fmt: skip
        modules: dict[str, nn.Module] = {"generator": generator}
        encoder = None
        if text.encoder in LEARNED or any(name.startswith("text.") for name in tensors):
            encoder = saved.checked_network(path, "text", lambda: text_encoder(text))
            modules["text"] = encoder
        on = runtime.pick_device(device)
        load_weights(path, modules)
        return cls(generator.to(on), None if encoder is None else encoder.to(on), config, folder)

    def save_pretrained(self, folder: str | Path, *, name: str | None = None, license_id: str | None = None) -> Path:
        """Write the model for others: config.json, model.safetensors, README.md (the model card), and its style encoder.

        `from_pretrained` of that folder draws the same pictures to the bit. Nothing in it names this machine.

        Args:
            folder: Made where it does not exist; a model that is there is replaced.
            name: How people shall load it, for the card; the folder, where it is None.
            license_id: Of the weights, as the Hub spells it ("mit", "cc-by-4.0"); without it, "mit" where the pictures were
                drawn by t2i, else "unknown".

        Raises:
            ConfigError: the folder is the one this model was loaded from.
            CheckpointError: it cannot be written.
        """
        folder = Path(folder)
        if self.folder is not None and folder.resolve() == self.folder.resolve():
            raise ConfigError(f"{folder} is where this model was loaded from; save it to another folder")
        style = self._load_style() if self.has_style else None
        data = saved.data_facts(self.folder)
        card = model_card(
            self.config, data, name=name or folder.name, license_id=license_id, version=_native.__version__,
            style=style is not None, reads=self.encoder is not None,
        )  # fmt: skip
        networks = {"generator": self.generator} | ({} if self.encoder is None else {"text": self.encoder})
        saved.write_model(folder, networks, self.config, data, card)
        if style is not None:
            encoder, blurs = style
            saved.write_style(folder, encoder, encoder.width, float(blurs), model_hash(folder))
        return folder

    def push_to_hub(
        self, name: str, *, private: bool = False, license_id: str | None = None, token: str | None = None
    ) -> str:
        """Publish the model, with its card, as owner/name on the Hugging Face Hub (extra: t2i[hub]).

        Args:
            name: owner/name; made where it does not exist.
            private: Make it private.
            license_id: As in `save_pretrained`.
            token: Of the Hub; without it, the one that huggingface_hub keeps.

        Returns:
            Its address.

        Raises:
            ConfigError: no such name, or the extra is not installed.
            CheckpointError: the Hub refuses, or there is no way to it.
        """
        with tempfile.TemporaryDirectory(prefix="t2i-") as place:
            folder = self.save_pretrained(Path(place) / "model", name=name, license_id=license_id)
            return hub.upload(folder, name, private=private, token=token, message="Publish a model of t2i")

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Tensor:
        """Embed captions: (n, T) float32. ConfigError for an empty caption, or where there is no text encoder."""
        if self.encoder is None:
            raise ConfigError(
                f"{self.folder or 'this model'} was trained on embeddings of {self.config.text.encoder} and has no text "
                "encoder: it cannot read sentences; train on an encoder (--text.encoder RUN), or give embeddings to "
                "Pipeline.draw"
            )
        several = checked(captions, 1)
        return self.encoder.embed(several)

    @torch.no_grad()
    def __call__(
        self, captions: str | Sequence[str], count: int = 1, seed: int = 0, truncation: float | None = None
    ) -> PipelineOutput:
        """Draw `count` pictures of each caption; picture i of every caption has the same noise.

        Args:
            captions: One or more sentences.
            count: Pictures of each.
            seed: Chooses the noise.
            truncation: Largest magnitude a number of noise may have (`truncated`): lower is more typical and less varied.

        Raises:
            ConfigError: an empty caption, a count below 1, or a truncation that is not above 0.
        """
        text = self.embed(checked(captions, count))  # (n, T)
        noise = runtime.noise((count, self.config.noise_dim), self.device, seed, 0, "generate")
        if truncation is not None:
            noise = truncated(noise, truncation)
        drawn = self.draw(noise.repeat(len(text), 1), text.repeat_interleave(count, dim=0))
        return PipelineOutput(to_pil(drawn), drawn)

    @torch.no_grad()
    def draw(self, noise: Tensor, text: Tensor) -> Tensor:
        """Draw from noise (n, Z) and embeddings (n, T): (n, 3, size, size) in [-1, 1]."""
        pictures: Tensor = self.generator(noise, text)
        return pictures

    def mix(self, captions: Sequence[str], weights: Tensor | Sequence[Sequence[float]]) -> Tensor:
        """Add captions up: row i is `sum_j weights[i][j] phi(captions[j])`, (n, T).

        Interpolation has weights (1 - w, w), the arithmetic A - B + C has (1, -1, 1).
        """
        rows = torch.as_tensor(weights, dtype=torch.float32, device=self.device)
        return rows @ self.embed(captions)

    @torch.no_grad()
    def interpolate(
        self,
        captions: Sequence[str],
        over: Literal["text", "noise"] = "text",
        *,
        steps: int = 8,
        count: int = 1,
        seed: int = 0,
    ) -> PipelineOutput:
        """Draw `count` strips of `steps` pictures that go from one end to the other.

        Args:
            captions: Two for the text, one for the noise.
            over: "text": from the first caption to the second, straight, the noise of a strip fixed; "noise": from one
                noise vector to another on an arc (`slerp`), the text fixed.
            steps: Pictures of a strip, both ends included.
            count: Strips, each of other noise.
            seed: Chooses the noise; over "text", strip i has the noise of picture i of a plain call.

        Returns:
            Strip by strip, `steps` pictures each.

        Raises:
            ConfigError: another number of captions, an empty one, fewer than 2 steps, or a count below 1.

        Source: Reed et al. 2016, section 5.3 (the paper interpolates noise linearly).
        """
        needed = {"text": 2, "noise": 1}[over]
        if isinstance(captions, str) or len(captions) != needed:
            got = 1 if isinstance(captions, str) else len(captions)
            raise ConfigError(f"interpolation over the {over} needs a list of {needed} captions, got {got}")
        if steps < 2 or count < 1:
            raise ConfigError(f"interpolation needs at least 2 steps and a count of 1, got {steps} and {count}")
        weight = torch.linspace(0, 1, steps, device=self.device)
        first = runtime.noise((count, self.config.noise_dim), self.device, seed, 0, "generate")
        if over == "text":
            text = self.mix(captions, torch.stack([1 - weight, weight], dim=1)).repeat(count, 1)
            noise = first.repeat_interleave(steps, dim=0)
        else:
            text = self.embed(captions).repeat(count * steps, 1)
            second = runtime.noise((count, self.config.noise_dim), self.device, seed, 1, "generate")
            noise = slerp(first, second, weight).flatten(0, 1)
        drawn = self.draw(noise, text)
        return PipelineOutput(to_pil(drawn), drawn)

    @torch.no_grad()
    def arithmetic(
        self, captions: Sequence[str], weights: Sequence[Sequence[float]], count: int = 1, seed: int = 0
    ) -> PipelineOutput:
        """Draw `count` pictures of each weighted sum of captions, such as A - B + C with the row of weights (1, -1, 1).

        Picture i of every sum has the same noise, that of picture i of a plain call.

        Raises:
            ConfigError: a row without a weight for each caption, an empty caption, or a count below 1.
        """
        if isinstance(captions, str) or any(len(row) != len(captions) for row in weights) or not weights:
            raise ConfigError("arithmetic needs a list of captions, and rows with a weight for each of them")
        if count < 1:
            raise ConfigError(f"count must be at least 1, got {count}")
        text = self.mix(captions, weights)  # (n, T)
        noise = runtime.noise((count, self.config.noise_dim), self.device, seed, 0, "generate")
        drawn = self.draw(noise.repeat(len(text), 1), text.repeat_interleave(count, dim=0))
        return PipelineOutput(to_pil(drawn), drawn)

    @property
    def has_style(self) -> bool:
        """Whether the folder holds a style encoder."""
        return self.folder is not None and (self.folder / "style.safetensors").exists()

    @property
    def style(self) -> StyleEncoder:
        """The style encoder of the run, loaded when it is first asked for; CheckpointError where there is none."""
        return self._load_style()[0]

    def _load_style(self) -> tuple[StyleEncoder, bool]:
        if self._style is None:
            if self.folder is None or not self.has_style:
                where = self.folder or "this pipeline"
                raise CheckpointError(
                    f"{where} has no style encoder; train it first: t2i-train style --model {self.folder or 'RUN'}"
                )
            path = saved.plain_file(self.folder, "style.json", saved.MAX_SETTINGS_BYTES)
            weights = saved.plain_file(self.folder, "style.safetensors")
            try:
                facts = json.loads(path.read_text(encoding="utf-8"))
                width, blur, model = (
                    int(facts["settings"]["width"]),
                    facts["settings"]["blur"] > 0,
                    facts["model_sha256"],
                )
            except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise CheckpointError(f"{path} cannot be read as the settings of a style encoder: {error}") from error
            if model != model_hash(self.folder):
                raise CheckpointError(
                    f"the model of {self.folder} has changed since its style encoder was trained; "
                    f"train that anew: t2i-train style --model {self.folder} --force"
                )
            encoder = saved.checked_network(
                weights, "style", lambda: StyleEncoder(self.config.size, width, self.config.noise_dim)
            )
            load_weights(weights, {"style": encoder})
            self._style = encoder.eval().requires_grad_(False).to(self.device), blur
        return self._style

    @torch.no_grad()
    def read_style(self, images: Tensor, *, drawn: bool = False) -> Tensor:
        """Read the noise that would draw pictures like these: S(x).

        Args:
            images: (n, 3, size, size) in [-1, 1].
            drawn: They come from this generator, every trace of it intact; otherwise they are read as photographs are,
                blurred, where the style encoder was trained on blurred pictures too: the mean over the blurs of BLURS.

        Returns:
            (n, Z) float32.
        """
        encoder, blur = self._load_style()
        images = images.to(self.device)
        if drawn or not blur:
            noise: Tensor = encoder(images)
            return noise
        return torch.stack([encoder(blurred(images, side)) for side in BLURS]).mean(dim=0)

    def style_noise(self, images: Tensor) -> Tensor:
        """Read noise to draw with: S(x) at the length that noise has, the root of Z.

        S answers with the mean of all noise that fits a picture, which is shorter than any noise the generator has seen,
        and would draw a pale average. Not in the paper.
        """
        return F.normalize(self.read_style(images)) * math.sqrt(self.config.noise_dim)

    @torch.no_grad()
    def transfer_style(
        self,
        images: Tensor | Image.Image | str | Path | Sequence[Image.Image | str | Path],
        captions: str | Sequence[str],
    ) -> PipelineOutput:
        """Draw each caption in the style of each picture: background and place from the picture, content from the text.

        Args:
            images: Pictures, paths of pictures (scaled to the model's size, the longer side cut off), or a tensor
                (n, 3, size, size) in [-1, 1].
            captions: One or more sentences.

        Returns:
            Picture by picture, all captions each.

        Raises:
            ConfigError: no picture, or an empty caption.
            DataError: a file that is no picture.
            CheckpointError: the run has no style encoder.

        Source: Reed et al. 2016, section 4.4: z = S(x), then G(z, phi(t)). Differs: see `style_noise`.
        """
        if isinstance(captions, str):
            captions = [captions]
        text = self.embed(captions)
        if not isinstance(images, Tensor):
            several = [images] if isinstance(images, (str, Path, Image.Image)) else list(images)
            images = read_pictures(several, self.config.size)
        expected = (3, self.config.size, self.config.size)
        if images.shape[1:] != expected or not len(images):
            raise ConfigError(f"style pictures must be (n, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        noise = self.style_noise(images)
        drawn = self.draw(noise.repeat_interleave(len(text), dim=0), text.repeat(len(noise), 1))
        return PipelineOutput(to_pil(drawn), drawn)
