"""Images written as text in base64, the usual or the URL-safe one, with or without `data:image/png;base64,` before it."""

import base64
import binascii
import re

from t2i.errors import DataError
from t2i.prepare.kinds import image_kind

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,\s*")
_START = re.compile(r"[A-Za-z0-9+/_-]{64}")
_TO_USUAL = bytes.maketrans(b"-_", b"+/")
NO_NAME = (
    "an image in base64, and no name of one; such a column is read from Parquet by t2i-prepare parquet, "
    "which pandas writes: pandas.read_json('a.jsonl', lines=True).to_parquet('a.parquet')"
)


def holds_image(text: str | bytes) -> bool:
    """Return whether a text begins as an image in base64.

    >>> holds_image("iVBORw0KGgo" + 80 * "A"), holds_image("images/iVBORw0KGgo.png"), holds_image(80 * "A")
    (True, False, False)
    """
    start = text[:200].decode("latin-1") if isinstance(text, bytes) else text[:200]
    start = start.lstrip()
    match = _START.match(start, url.end() if (url := _DATA_URL.match(start)) else 0)
    return match is not None and image_kind(base64.b64decode(match[0].encode().translate(_TO_USUAL))) is not None


def decoded_image(text: str | bytes, limit: int) -> bytes:
    """Decode a text that `holds_image`. DataError where it is damaged, or the image has more bytes than the limit."""
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
        url = _DATA_URL.match(data[:200].decode("latin-1").lstrip())
        whole = b"".join((data.lstrip()[url.end() :] if url else data).split()).rstrip(b"=")
        if len(whole) * 3 // 4 > limit:
            raise DataError(f"too large: {len(whole) * 3 // 4} bytes, the limit is {limit}")
        return base64.b64decode(whole.translate(_TO_USUAL) + b"=" * (-len(whole) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise DataError(f"broken: no base64 ({error})") from error
