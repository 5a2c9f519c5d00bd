"""Nothing altered in silence: deep samples by one rule, every orientation that there is, whole JPEGs with dirt in them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from t2i.config.sizes import MAX_PIXELS
from t2i.prepare.images import load_images
from t2i.prepare.items import Item

RED, BLUE = (255, 0, 0), (0, 0, 255)


def load(tmp_path, data, name="a.bin", embedded=False, size=16):
    """Decode a file, or the bytes of one in an archive: the pixels, and the reason where that cannot be done."""
    path = tmp_path / name
    path.write_bytes(data)
    item = Item(path, ("x",), read=(lambda limit: data) if embedded else None, member="m" if embedded else None)
    images, reasons = load_images([item], size, "stretch", MAX_PIXELS)
    return images[0], reasons[0]


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples, bits, kind=1):
    """Write an uncompressed TIFF by hand: (H, W, channels), unsigned (kind 1), signed (2) or floating-point (3)."""
    height, width, channels = samples.shape
    data = samples.tobytes()
    at = 8 + len(data)
    extra = at + 2 + 12 * 11 + 4
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels == 1 else extra),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if channels == 1 else 2),
        (273, 4, 1, 8),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
        (284, 3, 1, 1),
        (339, 3, channels, kind if channels == 1 else extra + 6),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", at) + data + directory + struct.pack("<6H", bits, bits, bits, kind, kind, kind)


def grey(value, dtype):
    return np.full((20, 20, 1), value, dtype)


DEEP = {  # a file, and the eight bits that it must give: the upper ones
    "a PNG of 16 bits": (lambda: saved(Image.fromarray(grey(0x12FF, np.uint16)[..., 0]), "PNG"), 0x12),
    "a dark PNG of 16 bits": (lambda: saved(Image.fromarray(grey(0x00FF, np.uint16)[..., 0]), "PNG"), 0x00),
    "a TIFF of 16 bits": (lambda: saved(Image.fromarray(grey(0x12FF, np.uint16)[..., 0]), "TIFF"), 0x12),
    "a bright TIFF of 16 bits": (lambda: saved(Image.fromarray(grey(0xFEDC, np.uint16)[..., 0]), "TIFF"), 0xFE),
    "a TIFF of 16 bits and three channels": (lambda: tiff(np.full((20, 20, 3), 0x12FF, "<u2"), 16), 0x12),
    "a PGM of 16 bits": (lambda: b"P5 20 20 65535\n" + grey(0x12FF, ">u2").tobytes(), 0x12),
    "a PGM of 12 bits": (lambda: b"P5 20 20 4095\n" + grey(0x812, ">u2").tobytes(), 0x81),
    "a PPM of 16 bits": (lambda: b"P6 20 20 65535\n" + np.full((20, 20, 3), 0x1234, ">u2").tobytes(), 0x12),
    "JPEG 2000 of 16 bits": (lambda: saved(Image.fromarray(grey(0x12FF, np.uint16)[..., 0]), "JPEG2000"), 0x12),
}


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("form", DEEP)
def test_deeper_samples_become_the_upper_eight_of_their_bits(tmp_path, form, embedded):
    make, value = DEEP[form]
    image, reason = load(tmp_path, make(), embedded=embedded)
    assert reason is None
    assert (image == value).all(), image[0, 0]


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: saved(Image.fromarray(grey(0.5, np.float32)[..., 0]), "TIFF"), "floating-point"),
        (lambda: saved(Image.fromarray(grey(70_000, np.int32)[..., 0]), "TIFF"), "32-bit"),
        (lambda: tiff(grey(7, "<u4"), 32), "32-bit"),
    ],
)
def test_samples_whose_black_and_white_nobody_knows_are_named(tmp_path, make, what, embedded):
    _, reason = load(tmp_path, make(), embedded=embedded)
    assert reason == f"unsupported: {what} samples; scale the image to 8 or 16 bits a sample"


def half_and_half():
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (16, 0, 32, 16))  # red left, blue right
    return image


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" {}</rdf:RDF></x:xmpmeta>'
)
ATTRIBUTE, ELEMENT = 'tiff:Orientation="{}"/>', "><tiff:Orientation>{}</tiff:Orientation></rdf:Description>"


def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags.tobytes()


def png_with(**chunks):
    info = PngImagePlugin.PngInfo()
    for key, (value, compressed) in chunks.items():
        if key == "xmp":
            info.add_itxt("XML:com.adobe.xmp", value, zip=compressed)
        else:
            info.add_text("Raw profile type exif", value, zip=compressed)
    return saved(half_and_half(), "PNG", pnginfo=info)


def raw_profile(orientation):
    """EXIF as ImageMagick writes it into the text of a PNG."""
    data = exif(orientation)
    return f"\nexif\n{len(data):8d}\n{data.hex()}\n"


TURNED = {
    "EXIF in JPEG": lambda way: saved(half_and_half(), "JPEG", quality=95, exif=exif(way)),
    "EXIF in PNG": lambda way: saved(half_and_half(), "PNG", exif=exif(way)),
    "EXIF in WebP": lambda way: saved(half_and_half(), "WEBP", lossless=True, exif=exif(way)),
    "XMP in JPEG": lambda way: saved(
        half_and_half(), "JPEG", quality=95, xmp=XMP.format(ATTRIBUTE.format(way)).encode()
    ),
    "XMP as an element": lambda way: saved(
        half_and_half(), "JPEG", quality=95, xmp=XMP.format(ELEMENT.format(way)).encode()
    ),
    "XMP in PNG": lambda way: png_with(xmp=(XMP.format(ATTRIBUTE.format(way)), False)),
    "compressed XMP in PNG": lambda way: png_with(xmp=(XMP.format(ATTRIBUTE.format(way)), True)),
    "XMP in WebP": lambda way: saved(
        half_and_half(), "WEBP", lossless=True, xmp=XMP.format(ATTRIBUTE.format(way)).encode()
    ),
    "XMP in a large WebP": lambda way: saved(
        Image.fromarray(
            np.random.default_rng(0).integers(0, 9, (400, 800, 3), np.uint8)
            + np.asarray(half_and_half().resize((800, 400), Image.Resampling.NEAREST)) // 2
        ),
        "WEBP",
        lossless=True,
        xmp=XMP.format(ATTRIBUTE.format(way)).encode(),
    ),
    "a raw profile in PNG": lambda way: png_with(raw=(raw_profile(way), False)),
    "a compressed raw profile in PNG": lambda way: png_with(raw=(raw_profile(way), True)),
    "EXIF in TIFF": lambda way: saved(half_and_half(), "TIFF", exif=exif(way)),
    "grey TIFF": lambda way: saved(half_and_half().split()[0], "TIFF", exif=exif(way)),
    "deep grey TIFF": lambda way: saved(
        Image.fromarray(np.asarray(half_and_half())[..., 0].astype(np.uint16) << 8), "TIFF", exif=exif(way)
    ),
}


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("form", TURNED)
def test_an_orientation_turns_the_image_wherever_it_stands(tmp_path, form, embedded):
    image, reason = load(tmp_path, TURNED[form](6), embedded=embedded)
    assert reason is None
    red = image[..., 0].astype(int)  # turned clockwise: what is stored left stands on top
    assert red[:5].min() > 100 > red[11:].max()
    upright, _ = load(tmp_path, TURNED[form](1), embedded=embedded)
    red = upright[..., 0].astype(int)
    assert red[:, :5].min() > 100 > red[:, 11:].max()


def segments(data):
    """Split a JPEG at its markers, up to the scan: the pieces between which dirt can lie."""
    pieces, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big") + 2
        pieces.append(data[at : at + length])
        at += length
    return [*pieces, data[at:]]


PAD = bytes(40)
JPEG = saved(half_and_half(), "JPEG", quality=95)


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("place", range(2, len(segments(JPEG))))
@pytest.mark.parametrize("dirt", [b"\0", b"\0\0\0\0", b"\x01\x02\x03"])
def test_a_whole_jpeg_with_dirt_between_its_headers_is_read(tmp_path, place, dirt, embedded):
    pieces = segments(JPEG)
    data = b"".join(pieces[:place]) + dirt + b"".join(pieces[place:])
    image, reason = load(tmp_path, data, embedded=embedded)
    assert reason is None
    assert (
        np.array_equal(image, load(tmp_path, JPEG)[0]) or np.abs(image.astype(int) - load(tmp_path, JPEG)[0]).max() < 8
    )


def test_a_jpeg_with_dirt_that_was_cut_stays_out(tmp_path):
    pieces = segments(JPEG)
    data = b"".join(pieces[:2]) + b"\0\0" + b"".join(pieces[2:])
    for length in range(20, len(data) - 2, 7):
        _, reason = load(tmp_path, data[:length])
        assert reason is not None, length
        assert reason.startswith("broken: ")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"8BPS\0\x01" + PAD, "Photoshop"),
        (b"v/1\x01" + PAD, "OpenEXR"),
        (b"\xff\n" + PAD, "JPEG XL"),
        (b'<?xml version="1.0"?><svg width="9"></svg>', "SVG"),
        (b"qoif" + PAD, "QOI"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path, data, kind):
    assert load(tmp_path, data)[1] == f"unsupported: {kind} is not read; convert it to JPEG or PNG"


def test_a_png_chunk_of_orientation_costs_no_memory(tmp_path):
    """Text that unpacks to gigabytes is refused by Pillow's own limit, in one line."""
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"tiff:Orientation" + bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    data = saved(half_and_half(), "PNG")
    _, reason = load(tmp_path, data[:33] + chunk + data[33:])
    assert reason is None or reason.startswith(("broken: ", "too large: "))
