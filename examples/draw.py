"""Generate images from Python: four of each of two captions, and an interpolation between the captions.

python examples/draw.py runs/drawings "a flower with five red petals" "a flower with eight blue petals" out
"""

import sys
from pathlib import Path

import t2i


def main(model: str, first: str, second: str, folder: str) -> None:
    """Write four images of each caption, and five of the interpolation between them."""
    pipe, out = t2i.Pipeline.from_pretrained(model), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    drawn = pipe([first, second], count=4, seed=0)  # image i of both captions has the same noise
    between = pipe.interpolate([first, second], "text", steps=5, seed=0)
    for name, images in (("drawn", drawn.images), ("between", between.images)):
        for number, image in enumerate(images):
            image.save(out / f"{name}-{number}.png")
    print(f"{len(drawn.images) + len(between.images)} images in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
