"""Captioned images, however they are kept, to a packed data set.

* A source is a function that lists `Item`s: an image, its captions, its class and split. `SOURCES` names them all.
* `pack` decodes and resizes them on all cores (the native module; Pillow for formats it does not know), and writes shards
  of plain safetensors and, last, `pack.json`. Stopped, it goes on; in parts, it makes the same pack.
* A bad file never stops it: it is left out, counted, and named with its reason in `report.json`.
* A name or a link that leads out of the source is not followed, and nothing is ever unpacked.
"""

from t2i.files import cache_folder
from t2i.prepare.collect import SourceOptions
from t2i.prepare.images import Fit, load_images
from t2i.prepare.items import Item, Report, inside, read_lines
from t2i.prepare.packing import SOURCES, pack
from t2i.prepare.parts import merge
from t2i.prepare.writer import PackWriter

__all__ = [
    "SOURCES",
    "Fit",
    "Item",
    "PackWriter",
    "Report",
    "SourceOptions",
    "cache_folder",
    "inside",
    "load_images",
    "merge",
    "pack",
    "read_lines",
]
