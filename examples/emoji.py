"""Emoji and their names as a folder of captioned images, in the layout of Hugging Face's ImageFolder.

    python examples/emoji.py /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf pictures/emoji

The font is Debian's fonts-noto-color-emoji (SIL Open Font License); the names are Unicode's, which Python knows.
"""

import json
import sys
import unicodedata
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # the font has bitmaps of one size, 136 x 128, selected by 109 points
BLOCKS = [
    (0x2600, 0x27C0),
    (0x2B1B, 0x2B56),
    (0x1F300, 0x1F650),
    (0x1F680, 0x1F700),
    (0x1F7E0, 0x1F7F0),
    (0x1F900, 0x1FB00),
]
SKIP = (
    "SIGN",
    "MODIFIER",
    "SYMBOL",
    "BUTTON",
    "ARROW",
    "KEYCAP",
    "SQUARED",
    "LETTER",
)  # flat signs rather than images


def draw(character: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """Draw one emoji on white; None if the font has no coloured glyph for it."""
    sheet = Image.new("RGBA", (160, 160), (255, 255, 255, 0))
    ImageDraw.Draw(sheet).text((12, 12), character, font=font, embedded_color=True)
    box = sheet.getbbox()
    if (
        box is None or max(sheet.convert("HSV").getchannel("S").getextrema()) < 32
    ):  # nothing, or the grey box of a missing one
        return None
    side = max(box[2] - box[0], box[3] - box[1]) + 8
    out = Image.new("RGBA", (side, side), "white")
    out.alpha_composite(sheet.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    return out.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(font_file: str, folder: str) -> None:
    """Write the images, and metadata.jsonl with one line per image: file_name and text."""
    font, out, lines = ImageFont.truetype(font_file, 109), Path(folder), []
    out.mkdir(parents=True, exist_ok=True)
    for code in (code for first, last in BLOCKS for code in range(first, last)):
        name = unicodedata.name(chr(code), "")
        picture = None if not name or any(word in name for word in SKIP) else draw(chr(code), font)
        if picture is not None:
            picture.save(out / f"{code:x}.png")
            lines.append(json.dumps({"file_name": f"{code:x}.png", "text": name.lower()}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} emoji in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
