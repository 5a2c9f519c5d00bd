"""The model card: the README.md of a saved model, which the Hugging Face Hub reads too.

Everything in it is taken from the settings, the pack's provenance and the run's own records; what is missing there is given as
"unknown". Nothing names the machine.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from t2i.blossoms.languages import CODES
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.presets import EXAMPLE

READS = {
    "char-cnn-rnn": "English, lower-cased, the first 201 characters, in an alphabet of 70 characters; others are ignored",
    "char-cnn-rnn-bytes": "the first 201 bytes of a sentence, in the languages of its captions",
    "ngrams": "the words, pairs of words and pieces of words that its captions had, in their languages; others are ignored",
    "minilm": "English, the first 256 word pieces of a sentence",
}


def model_card(
    config: TrainConfig,
    data: Mapping[str, Any],
    *,
    name: str,
    license_id: str | None = None,
    version: str = "",
    style: bool = False,
    text_encoder: bool = True,
) -> str:
    """Write a model card.

    Args:
        config: The settings of the training.
        data: From `t2i.pretrained.folder.data_metadata`.
        name: Of the model, as people load it: a folder or owner/name.
        license_id: As the Hub spells it; without one, "mit" where the data are the synthetic blossoms, else "unknown".
        version: Of t2i.
        style: It has a style encoder.
        text_encoder: It has a text encoder.
    """
    provenance = data.get("provenance") or {}
    synthetic = provenance.get("kind") == "blossoms"
    chosen = license_id or ("mit" if synthetic else "unknown")
    title = name.rstrip("/").rsplit("/", 1)[-1] or "model"
    sentence = EXAMPLE if synthetic else "a caption like those it was trained on"
    header: dict[str, Any] = {
        "license": chosen,
        "library_name": "t2i",
        "pipeline_tag": "text-to-image",
        "tags": ["t2i", "text-to-image", "gan", "gan-cls", config.text.kind, "pytorch", "safetensors"],
    }
    if languages := _languages(config.text.kind, provenance):
        header["language"] = languages
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items()) + "---",
        f"# {title}",
        "A text-to-image GAN after Reed et al., *Generative Adversarial Text to Image Synthesis* (ICML 2016), trained with "
        f"t2i: it generates images of {config.size} x {config.size} pixels from a sentence.",
        "## How to use it\n" + _usage(name, sentence, style, text_encoder),
        "## What it was trained on\n" + _table(_data_rows(data)),
        "## How it was trained\n" + _table(_training_rows(config, data.get("steps"), version)),
        "## Limits\n" + _limits(config, synthetic, chosen),
    ]
    return "\n\n".join(parts) + "\n"


def _languages(kind: str, provenance: Mapping[str, Any]) -> list[str]:
    """List the languages that a model reads, where that is known: n-grams read those of any captions."""
    if provenance.get("kind") == "blossoms":
        language = provenance.get("language", "en")
        return list(CODES) if language == "all" else [language] if language in CODES else []
    return ["en"] if READS.get(kind, "").startswith("English") else []


def _usage(name: str, sentence: str, style: bool, text_encoder: bool) -> str:
    if not text_encoder:
        return (
            "This model has no text encoder: it generates images from embeddings that were computed elsewhere, "
            "`Pipeline.draw(noise, text)`."
        )
    lines = [
        "```python",
        "import t2i",
        "",
        f"pipe = t2i.Pipeline.from_pretrained({json.dumps(name)})",
        f'pipe([{json.dumps(sentence, ensure_ascii=False)}], count=8, seed=0).images[0].save("image.png")',
    ]
    if style:
        lines.append(
            f'pipe.transfer_style("photo.jpg", [{json.dumps(sentence, ensure_ascii=False)}]).images[0].save("styled.png")'
        )
    return "\n".join([*lines, "```"])


def _data_rows(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    provenance = data.get("provenance") or {}
    rows = [("name", data.get("name")), ("images", data.get("images")), ("captions", data.get("captions"))]
    rows += [
        ("classes", data.get("classes")),
        ("stored at", f"{data['image_size']} px" if "image_size" in data else None),
    ]
    rows += [(key.replace("_", " "), value) for key, value in sorted(provenance.items())]
    rows += [("fingerprint of the pack", data.get("fingerprint"))]
    if not provenance:
        rows.append(("provenance", "unknown: the data set was no longer beside the model when this card was written"))
    return [(key, _cell(value)) for key, value in rows if value is not None]


def _training_rows(config: TrainConfig, steps: object, version: str) -> list[tuple[str, str]]:
    text = config.text
    kinds = {
        "joint": f"trained before the GAN, jointly with an image encoder ({text.objective})",
        "end-to-end": "trained with the GAN",
    }
    losses = (
        [f"GAN-CLS, mismatched pairs ({config.mismatch}) weighted {config.mismatch_weight}"]
        if config.mismatch_weight
        else ["GAN"]
    )
    losses += [f"GAN-INT {config.interpolation_weight}"] if config.interpolation_weight else []
    losses += [f"alignment {config.alignment_weight} (not in the paper)"] if config.alignment_weight else []
    losses += [f"noise recovery {config.recovery_weight} (not in the paper)"] if config.recovery_weight else []
    rows: list[tuple[str, object]] = [
        ("preset", config.preset),
        ("steps", "unknown" if steps is None else f"{_cell(steps)} of {config.batch} images"),
        ("generator", f"width {config.generator_width}, noise of {config.noise_dim} dimensions"),
        (
            "text encoder",
            f"{_encoder_name(text)}, {text.dim} dimensions; {kinds.get(text.encoder, 'pretrained, frozen')}",
        ),
        ("losses", "; ".join(losses)),
        ("optimizer", f"Adam, learning rate {config.learning_rate}, betas {config.beta1} and {config.beta2}"),
        ("weights saved", f"exponential moving average, decay {config.ema}" if config.ema else "of the last step"),
        ("seed", config.seed),
        ("t2i", version or "unknown"),
    ]
    return [(key, _cell(value)) for key, value in rows]


def _encoder_name(text: TextOptions) -> str:
    """Name a text encoder as people do."""
    names = {"ngrams": "bag of word and character n-grams", "minilm": "all-MiniLM-L6-v2, frozen, and a linear map"}
    alphabet = ", UTF-8 bytes" if text.kind == "char-cnn-rnn-bytes" else ""
    return names.get(text.kind, f"char-CNN-RNN ({text.variant}{alphabet})")


def _limits(config: TrainConfig, synthetic: bool, license_id: str) -> str:
    lines = [
        "- It generates what its training images show: a sentence about another subject gives an image of theirs.",
        f"- It reads {READS[config.text.kind]}.",
        f"- {config.size} x {config.size} pixels; nothing it generates is a likeness of a real thing.",
        "- No metrics were computed for this card: `t2i-eval images` measures fidelity, diversity and agreement with captions.",
    ]
    if not synthetic:
        lines.append("- It reproduces the biases of its images and captions; look at them before relying on it.")
    if license_id == "unknown":
        lines.append("- The license is unknown: it depends on the images the model was trained on.")
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {key} | {value} |" for key, value in rows)


def _cell(value: object) -> str:
    """Write a value so that it cannot leave its cell: one line, no markup."""
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:500]
