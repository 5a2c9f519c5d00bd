"""Recognise the keys of an object of captions by language: `en`, `zh-CN`, `pt_BR`, `eng_Latn`, `caption_en`, `English`, `中文`.

Only codes that are in use count: most words of two and three letters (`url`, `alt`, `by`) look like a code and are none.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

# ISO 639-1, and the codes of ISO 639-2 and 639-3 that translated captions are published with.
_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu iw ja jv ka
kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl
nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw
ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu amh arb ara ben ces cmn cze dan
deu dut ell eng est fas fil fin fra fre ger gre heb hin hrv hun ind ita jpn kor mri nld nob nor pes pol por quz ron
rum rus slk slv spa srp swa swe swh tam tel tha tur ukr urd vie yue zho
cn jp gr cz dk ua sp chi chn chs cht zhs zht jap baq bul glg hau hye ice isl kat kaz khm lao lav mal mkd mon msa mya nep
sqi tgl uzb wel zul
"""
_NAMES = """
arabic bengali bulgarian cantonese catalan chinese croatian czech danish dutch english estonian filipino finnish
french german greek hebrew hindi hungarian indonesian italian japanese korean latvian lithuanian malay mandarin maori
norwegian persian polish portuguese quechua romanian russian serbian slovak slovenian spanish swahili swedish tamil
telugu thai turkish ukrainian urdu vietnamese afrikaans albanian amharic armenian azerbaijani basque belarusian bosnian
burmese esperanto farsi galician georgian gujarati hausa icelandic irish kannada kazakh khmer lao latin macedonian
malayalam marathi mongolian nepali punjabi sinhala somali tagalog tibetan uzbek welsh yoruba zulu castellano
hans hant ptbr zhcn zhtw 简体中文 繁體中文 繁体中文 简体 繁體 繁体 普通话 粤语 粵語
中文 汉语 漢語 英文 英语 英語 日文 日语 日本語 韩文 韩语 한국어
deutsch español français italiano português русский العربية हिन्दी
"""
CODES, NAMES = frozenset(_CODES.split()), frozenset(_NAMES.split())
NOT_ALONE = frozenset({"id", "no"})  # Indonesian and Norwegian, or the number of something
# Beside the name of a language: simplified_chinese, Chinese (Traditional), Brazilian Portuguese.
_BESIDE = frozenset({"simplified", "traditional", "brazilian", "european", "latin", "american", "british", "us", "uk"})
# A caption's kind behind the word: caption_long; others (caption_model, caption_url) say something about it.
_KINDS = frozenset(
    {"short", "long", "brief", "detailed", "dense", "full", "original", "blip", "blip2", "human", "llava"}
)
_COUNTS = frozenset({"num", "n", "number", "count", "is", "has"})  # before the word: they say something about captions
_WORDS = ("caption", "captions", "description", "descriptions")
_TAG = re.compile(r"(?P<code>[a-z]{2,3})(?:[-_][a-z0-9]{2,8}){0,3}")


@lru_cache(maxsize=1000)
def are_languages(keys: Sequence[object], before: Sequence[str] = ()) -> bool:
    """Return whether every key is a language, alone or after one of the words `before`.

    >>> are_languages(("en", "zh-CN")), are_languages(("caption_en",), ("caption",)), are_languages(("en", "url"))
    (True, True, False)
    """
    start = re.compile(rf"(?:{'|'.join(map(re.escape, before))})[-_ ]") if before else None
    found = set()
    for key in keys:
        name = str(key).strip().casefold()
        if start is not None and (match := start.match(name)):
            name = name[match.end() :]
        if not _is_language(name):
            return False
        found.add(name)
    return not found <= NOT_ALONE


def _is_language(name: str) -> bool:
    tag = _TAG.fullmatch(name)
    if name in NAMES or (tag is not None and tag["code"] in CODES):
        return True
    words = [word for word in re.split(r"[-_\s()]+", name) if word and word not in _BESIDE]
    return len(words) == 1 and words[0] in NAMES


def is_kind_of_caption(name: str, captions: Sequence[str]) -> bool:
    """Return whether a key is a caption of some language or kind, by its words: the key is as `columns.plain` gives it.

    >>> [is_kind_of_caption(name, ("caption",)) for name in ("caption_cn", "short_caption", "caption_long", "caption_model")]
    [True, True, True, False]
    """
    first, _, kind = name.partition("_")
    before, _, last = name.rpartition("_")
    if first in captions and kind and are_languages((kind,)):
        return True
    return bool(before) and ((last in _WORDS and before not in _COUNTS) or (first in _WORDS and kind in _KINDS))
