"""Identify files: images and archives by their first bytes, text by extension, and files of the operating system."""

ENDINGS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
        ".heic",
        ".heif",
        ".tga",
        ".pcx",
        ".sgi",
    }
)
CAPTION_ENDINGS = (".txt", ".caption", ".captions", ".cap", ".text")
RAW_ENDINGS = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
RAW = "unsupported: a camera's raw file; convert it to JPEG or PNG"  # many are TIFFs of a small preview
# Files that are never images: their bytes are not looked at.
TEXT_ENDINGS = frozenset(CAPTION_ENDINGS) | frozenset(
    {
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".md",
        ".rst",
        ".xml",
        ".html",
        ".htm",
        ".yaml",
        ".yml",
        ".toml",
        ".parquet",
        ".arrow",
        ".pickle",
        ".pkl",
        ".npy",
        ".npz",
        ".pt",
        ".pth",
        ".safetensors",
        ".py",
        ".sh",
        ".log",
        ".mat",
        ".idx",
        ".index",
    }
)
ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
LEFT_BY_SYSTEMS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"})
POINTER = "a pointer of Git LFS, not the file itself: git lfs pull fetches it"
HEAD = 512  # bytes needed to identify a file

_IMAGES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"8BPS": "Photoshop",
    b"\0\0\x01\0": "icon",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"gimp xcf": "GIMP",
    b"icns": "icon",
    b"II\xbc\x01": "JPEG XR",
    b"P7\nWIDTH": "PAM",
    b"%!PS-Adobe": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"/* XPM */": "XPM",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"Y\xa6j\x95": "Sun raster",
    **{bytes([1, 0xDA, compressed, depth]): "SGI" for compressed in (0, 1) for depth in (1, 2)},
    **{bytes([10, version, 1, bits]): "PCX" for version in (0, 2, 3, 4, 5) for bits in (1, 2, 4, 8)},
}
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "zstandard",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}


def image_kind(head: bytes) -> str | None:
    """Name the format of an image by its first bytes; None for anything else."""
    for magic, kind in _IMAGES.items():
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:1] == b"P" and head[1:2] in b"123456Ff" and head[2:3] in (b"\n", b" ", b"\r", b"\t"):
        return "PNM"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) >= 26:
        return "BMP"
    if _is_targa(head):
        return "TGA"
    return "SVG" if b"<svg" in head[:300] else None


def _is_targa(head: bytes) -> bool:
    """Return whether a file begins as a TGA, which has no mark of its own: every field of its header must make sense."""
    if len(head) < 18 or head[16] not in (8, 15, 16, 24, 32) or head[17] >= 64 or any(head[8:10]):
        return False
    colours = (head[1] == 0 and head[2] in (2, 3, 10, 11) and not any(head[3:8])) or (
        head[1] == 1 and head[2] in (1, 9) and head[7] in (15, 16, 24, 32)
    )
    return colours and any(head[12:14]) and any(head[14:16])


def is_pointer(head: bytes) -> bool:
    """Return whether a file is what `git clone` leaves without Git LFS in place of a large one."""
    return head.startswith(b"version https://git-lfs.github.com/spec/")


def archive_kind(head: bytes) -> str | None:
    """Name an archive or a compressed file by its first bytes; None for anything else."""
    for magic, kind in _ARCHIVES.items():
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else None


def is_hidden(name: str) -> bool:
    """Return whether a file, or a folder above it, is hidden or was created by an operating system."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.casefold() in LEFT_BY_SYSTEMS
        for part in name.split("/")
    )


def ending(name: str) -> str:
    """Return the last ending of a name, in lower case, with its dot; "" where there is none."""
    base = name.rpartition("/")[2]
    stem, dot, last = base.rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def stem_of(name: str) -> str:
    """Return a name without its last ending."""
    return name[: len(name) - len(ending(name))]


def folder_of(name: str) -> str:
    """Return the folder of a file, which is empty at the top."""
    return name.rpartition("/")[0]


def looks_like_image(name: str) -> bool:
    """Return whether a name has the extension of an image."""
    return ending(name) in ENDINGS
