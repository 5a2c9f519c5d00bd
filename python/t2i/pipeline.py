"""A trained model as one object: sentences in, images out."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from t2i import _native
from t2i.config.options import TrainConfig
from t2i.data.blank import is_blank
from t2i.errors import ConfigError
from t2i.files import free_memory
from t2i.images import to_pil
from t2i.models.build import AnyGenerator
from t2i.models.encoders import StyleEncoder
from t2i.noise import noise_of, require_integer, slerp, truncated
from t2i.prepare.style_images import read_style_images
from t2i.pretrained import hub
from t2i.pretrained.card import model_card
from t2i.pretrained.folder import StyleParts, data_metadata, write_model
from t2i.pretrained.loader import load_model
from t2i.style import StyleReader, has_style
from t2i.text.protocol import TextEncoder, unread_warnings

PIXELS = 2**20  # of images that are drawn together, at most: what is between layers is many times as large
UNKNOWN_MEMORY = 2**40  # bytes, where the system does not say what is free


@dataclass
class PipelineOutput:
    """What a pipeline returns: `images`, caption by caption, `count` of each; and the same as a tensor."""

    images: list[Image.Image]
    tensor: Tensor  # (captions * count, 3, size, size) float32 in [-1, 1]


def listed(value: Any) -> list[Any]:
    """Return one thing or several as a list."""
    one = isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
    return [value] if one else list(value)


def sentences(captions: str | Iterable[str]) -> list[str]:
    """Return one sentence or several as a list; ConfigError for what is no text."""
    several: list[str] = listed(captions)
    for caption in several:
        if not isinstance(caption, str):
            raise ConfigError(f"a caption must be a text (str), got {type(caption).__name__}")
    return several


def check_captions(captions: str | Iterable[str]) -> list[str]:
    """Return one sentence or several as a list; ConfigError for an empty one or what is no text."""
    several = sentences(captions)
    if any(map(is_blank, several)):
        raise ConfigError("a caption is empty: say what to draw, as in 'a flower with five red petals'")
    return several


def check_memory(images: int, size: int, numbers: int) -> None:
    """Raise ConfigError where the memory does not hold so many images of `size` px, made from so many numbers each."""
    needed = images * (3 * 4 + 3 + 4) * size**2 + images * 2 * 4 * numbers  # float32, uint8, Pillow's; noise and text
    free = free_memory() or UNKNOWN_MEMORY
    if needed > free:
        raise ConfigError(
            f"{images:,} images of {size} px need {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free: ask "
            "for fewer at a time"
        )


class Pipeline:
    """Generate images from sentences, with a trained generator and its text encoder.

    Args:
        generator: Maps noise and text embeddings to images.
        encoder: Embeds captions; None where the generator was trained on embeddings from a file.
        config: The settings they were trained with.
        folder: The model folder, where the style encoder is looked for when it is first wanted.

    Example:
        >>> pipe = Pipeline.from_pretrained("runs/drawings")                  # doctest: +SKIP
        >>> pipe(["a flower with five red petals and a yellow centre"]).images[0].save("a.png")  # doctest: +SKIP
    """

    def __init__(
        self, generator: AnyGenerator, encoder: TextEncoder | None, config: TrainConfig, folder: Path | None = None
    ) -> None:
        self.generator, self.config = generator.eval(), config
        self.encoder = encoder if encoder is None else encoder.eval()
        self.device = next(generator.parameters()).device
        self.folder = folder
        self._style: StyleReader | None = None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "cpu", *, revision: str | None = None, token: str | None = None
    ) -> "Pipeline":
        """Load a run folder, a folder of `save_pretrained`, or a model of the Hugging Face Hub.

        A folder may come from a stranger: its files are checked before they are read, and nothing is unpickled.

        Args:
            folder: A folder on this machine; where there is none, owner/name on the Hub (extra: t2i[hub]).
            device: cpu, cuda, cuda:N or mps.
            revision: Of the Hub: branch, tag or commit.
            token: Of the Hub, for private models.

        Raises:
            CheckpointError: a file is missing, damaged, of another shape, or not a plain file; no such model on the Hub.
            ConfigError: the Hub is asked for and the extra is not installed.
        """
        model = load_model(folder, device, revision=revision, token=token)
        return cls(model.generator, model.encoder, model.config, model.folder)

    def save_pretrained(self, folder: str | Path, *, name: str | None = None, license_id: str | None = None) -> Path:
        """Write the model for others: config.json, model.safetensors, README.md (the model card), and its style encoder.

        `from_pretrained` of that folder generates the same images to the bit. Nothing in it names this machine.

        Args:
            folder: Made where it does not exist; an existing saved model is replaced atomically.
            name: How people load it, for the card; the folder's name by default.
            license_id: Of the weights, as the Hub spells it ("mit", "cc-by-4.0"); without it, "mit" for a model of the
                synthetic blossoms, else "unknown".

        Raises:
            ConfigError: the folder is the one this model was loaded from.
            CheckpointError: it cannot be written, other files than a saved model's would be overwritten, or a weight is NaN.
        """
        folder = Path(folder)
        if self.folder is not None and folder.resolve() == self.folder.resolve():
            raise ConfigError(f"{folder} is where this model was loaded from; save it to another folder")
        style = self.style_reader if self.has_style else None
        data = data_metadata(self.folder)
        card = model_card(
            self.config,
            data,
            name=name or folder.name,
            license_id=license_id,
            version=_native.__version__,
            style=style is not None,
            text_encoder=self.encoder is not None,
        )
        networks = {"generator": self.generator} | ({} if self.encoder is None else {"text": self.encoder})
        parts = None if style is None else StyleParts(style.encoder, style.encoder.width, float(style.blur))
        write_model(folder, networks, self.config, data, card, parts)
        return folder

    def push_to_hub(
        self, name: str, *, private: bool = False, license_id: str | None = None, token: str | None = None
    ) -> str:
        """Publish the model, with its card, as owner/name on the Hugging Face Hub (extra: t2i[hub]).

        Args:
            name: owner/name; created where it does not exist.
            private: Create it as a private repository.
            license_id: As in `save_pretrained`.
            token: Of the Hub; without it, the one that huggingface_hub keeps.

        Returns:
            Its address.

        Raises:
            ConfigError: no such name, or the extra is not installed.
            CheckpointError: the Hub refuses, or it cannot be reached.
        """
        with tempfile.TemporaryDirectory(prefix="t2i-") as place:
            folder = self.save_pretrained(Path(place) / "model", name=name, license_id=license_id)
            return hub.upload(folder, name, private=private, token=token, message="Publish a model of t2i")

    @torch.no_grad()
    def embed(self, captions: str | Sequence[str]) -> Tensor:
        """Embed captions: (n, T) float32. ConfigError for an empty caption, or where there is no text encoder."""
        if self.encoder is None:
            raise ConfigError(
                f"{self.folder or 'this model'} was trained on embeddings of {self.config.text.encoder} and has no text "
                "encoder: it cannot read sentences; train on an encoder (--text.encoder RUN), or pass embeddings to "
                "Pipeline.draw"
            )
        return self.encoder.embed(check_captions(captions)).float()

    def unread(self, captions: str | Sequence[str]) -> list[str]:
        """Warn, one line each, of captions that the model does not read whole: words it never learned, characters it cuts."""
        several = sentences(captions)
        return [] if self.encoder is None else unread_warnings(several, self.encoder)

    @torch.no_grad()
    def __call__(
        self, captions: str | Sequence[str], count: int = 1, seed: int = 0, truncation: float | None = None
    ) -> PipelineOutput:
        """Generate `count` images of each caption; image i of every caption has the same noise.

        Args:
            captions: One or more sentences.
            count: Images of each.
            seed: Chooses the noise.
            truncation: Largest magnitude of a component of the noise (`truncated`): lower is more typical and less varied.

        Raises:
            ConfigError: an empty caption, a count below 1, or a truncation that is not above 0; a seed that is no whole
                number; more images than fit into the memory.
        """
        several, count = check_captions(captions), require_integer("count", count, 1)
        self._check_memory(len(several) * count)
        text = self.embed(several)  # (n, T)
        noise = noise_of(seed, count, self.config.noise_dim, self.device)
        if truncation is not None:
            noise = truncated(noise, truncation)
        images = self.draw(noise.repeat(len(text), 1), text.repeat_interleave(count, dim=0))
        return PipelineOutput(to_pil(images), images)

    @torch.no_grad()
    def draw(self, noise: Tensor, text: Tensor) -> Tensor:
        """Generate from noise (n, Z) and text embeddings (n, T): (n, 3, size, size) float32 in [-1, 1].

        Both may be of any type of number and on any device; they are rounded to that of the generator's weights.

        Raises:
            ConfigError: another shape, NaN or infinity, or more images than fit into the memory.
        """
        noise, text = (
            self._numbers("noise", noise, self.config.noise_dim),
            self._numbers("text", text, self.config.text.dim),
        )
        if len(noise) != len(text):
            raise ConfigError(f"noise and text must have a row for each image, got {len(noise)} and {len(text)} rows")
        self._check_memory(len(noise))
        block = max(1, PIXELS // self.config.size**2)
        parts = [self.generator(*part).float() for part in zip(noise.split(block), text.split(block), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _numbers(self, name: str, rows: Tensor, width: int) -> Tensor:
        """Return rows (n, width) as the generator takes them."""
        sound = isinstance(rows, Tensor) and rows.layout is torch.strided and not rows.is_complex() and not rows.is_meta
        if not sound or rows.dim() != 2 or rows.shape[1] != width:
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ConfigError(f"{name} must be a tensor of numbers (n, {width}), got {got}")
        like = next(self.generator.parameters())
        rows = rows.to(like.device, like.dtype)
        if not bool(rows.isfinite().all()):
            raise ConfigError(f"{name} holds NaN or infinity, or what {like.dtype} cannot hold")
        return rows

    def _check_memory(self, images: int) -> None:
        check_memory(images, self.config.size, self.config.noise_dim + self.config.text.dim)

    def mix(self, captions: Sequence[str], weights: Tensor | Sequence[Sequence[float]]) -> Tensor:
        """Compute weighted sums of caption embeddings: row i is `sum_j weights[i][j] phi(captions[j])`, (n, T).

        Interpolation has the weights (1 - w, w), the arithmetic A - B + C has (1, -1, 1).

        Raises:
            ConfigError: a row without a finite weight for each caption, no row, or an empty caption.
        """
        several = check_captions(captions)
        try:
            rows = torch.as_tensor(weights, dtype=torch.float32, device=self.device)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # words, or rows of several lengths
            rows = torch.empty(0)
        if rows.dim() != 2 or not rows.numel() or rows.shape[1] != len(several) or not bool(rows.isfinite().all()):
            raise ConfigError(
                "sums of captions need a list of captions, and rows with a weight for each of them, all finite"
            )
        return rows @ self.embed(several)

    @torch.no_grad()
    def interpolate(
        self,
        captions: str | Sequence[str],
        over: Literal["text", "noise"] = "text",
        *,
        steps: int = 8,
        count: int = 1,
        seed: int = 0,
    ) -> PipelineOutput:
        """Generate `count` strips of `steps` images that interpolate between two ends.

        Args:
            captions: Two for the text, one for the noise.
            over: "text": linearly from the first caption to the second, the noise of a strip fixed; "noise": from one
                noise vector to another by `slerp`, the text fixed.
            steps: Images of a strip, both ends included.
            count: Strips, each with its own noise.
            seed: Chooses the noise; over "text", strip i has the noise of image i of a plain call.

        Returns:
            Strip by strip, `steps` images each.

        Raises:
            ConfigError: another `over` or number of captions, an empty one, fewer than 2 steps, a count below 1, or more
                images than fit into the memory.

        Source: Reed et al. 2016, section 5.3 (differs: the paper interpolates noise linearly).
        """
        if over not in ("text", "noise"):
            raise ConfigError(f"interpolation goes over 'text' or 'noise', got {over!r}")
        several, wanted = check_captions(captions), {"text": "two captions", "noise": "one caption"}[over]
        if len(several) != (2 if over == "text" else 1):
            raise ConfigError(f"interpolation over the {over} needs {wanted}, got {len(several)}")
        steps, count = require_integer("steps", steps, 2), require_integer("count", count, 1)
        self._check_memory(steps * count)
        weight = torch.linspace(0, 1, steps, device=self.device)
        first = noise_of(seed, count, self.config.noise_dim, self.device)
        if over == "text":
            text = self.mix(several, torch.stack([1 - weight, weight], dim=1)).repeat(count, 1)
            noise = first.repeat_interleave(steps, dim=0)
        else:
            text = self.embed(several).repeat(count * steps, 1)
            second = noise_of(seed, count, self.config.noise_dim, self.device, draw=1)
            noise = slerp(first, second, weight).flatten(0, 1)
        images = self.draw(noise, text)
        return PipelineOutput(to_pil(images), images)

    @torch.no_grad()
    def arithmetic(
        self, captions: Sequence[str], weights: Sequence[Sequence[float]], count: int = 1, seed: int = 0
    ) -> PipelineOutput:
        """Generate `count` images of each weighted sum of captions, such as A - B + C with the weights (1, -1, 1).

        Image i of every sum has the same noise as image i of a plain call.

        Raises:
            ConfigError: as `mix`, or a count below 1.
        """
        count = require_integer("count", count, 1)
        text = self.mix(captions, weights)  # (n, T)
        self._check_memory(len(text) * count)
        noise = noise_of(seed, count, self.config.noise_dim, self.device)
        images = self.draw(noise.repeat(len(text), 1), text.repeat_interleave(count, dim=0))
        return PipelineOutput(to_pil(images), images)

    @property
    def has_style(self) -> bool:
        """Whether the folder holds a style encoder."""
        return has_style(self.folder)

    @property
    def style_reader(self) -> StyleReader:
        """The style encoder and how it reads images, loaded on first use; CheckpointError where there is none."""
        if self._style is None:
            self._style = StyleReader.load(self.folder, self.config, self.device)
        return self._style

    @property
    def style(self) -> StyleEncoder:
        """The style encoder, loaded on first use; CheckpointError where there is none."""
        return self.style_reader.encoder

    def read_style(self, images: Tensor, *, generated: bool = False) -> Tensor:
        """Read the noise that would generate images like these, S(x): (n, Z) float32; see `StyleReader.read`."""
        return self.style_reader.read(self._checked(images), generated=generated)

    def style_noise(self, images: Tensor) -> Tensor:
        """Read noise to generate with: S(x) scaled to the usual length of noise; see `StyleReader.noise`."""
        return self.style_reader.noise(self._checked(images))

    def _checked(self, images: Tensor) -> Tensor:
        """Return images as the style encoder takes them; ConfigError where they are none."""
        expected = (3, self.config.size, self.config.size)
        if images.shape[1:] != expected or not len(images):
            raise ConfigError(f"style images must be (n, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        if not images.is_floating_point() or not bool(images.isfinite().all()):
            got = "NaN or infinity" if images.is_floating_point() else images.dtype
            raise ConfigError(f"style images must be numbers in [-1, 1], got {got}")
        return images.to(self.device, torch.float32)

    @torch.no_grad()
    def transfer_style(
        self,
        images: Tensor | Image.Image | str | Path | Sequence[Image.Image | str | Path],
        captions: str | Sequence[str],
    ) -> PipelineOutput:
        """Generate each caption in the style of each image: background and place from the image, content from the text.

        Args:
            images: Images, paths of images (scaled to the model's size and cropped to a square), or a tensor
                (n, 3, size, size) in [-1, 1].
            captions: One or more sentences.

        Returns:
            Image by image, all captions each.

        Raises:
            ConfigError: no image, or an empty caption.
            DataError: a file that is no image.
            CheckpointError: the model has no style encoder.

        Source: Reed et al. 2016, section 4.4: z = S(x), then G(z, phi(t)). Differs: see `StyleReader.noise`.
        """
        text = self.embed(captions)
        if not isinstance(images, Tensor):
            images = read_style_images(listed(images), self.config.size)
        noise = self.style_noise(images)
        images = self.draw(noise.repeat_interleave(len(text), dim=0), text.repeat(len(noise), 1))
        return PipelineOutput(to_pil(images), images)
