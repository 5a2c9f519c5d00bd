"""Captions of the embedded data set in Chinese, Spanish, Arabic and Hindi: words and wordings, written for the purpose.

A wording has slots in braces. A slot that names a colour or a shape has one form for each word it must agree with: in Spanish
`{petal}` agrees with pétalos (masculine plural) and `{flower}` with flor (feminine singular).
"""

from dataclasses import dataclass
from typing import Final, Literal

LanguageCode = Literal["en", "zh", "es", "ar", "hi"]
CaptionLanguage = Literal["en", "zh", "es", "ar", "hi", "all"]  # all: every language in turn
CODES: Final[tuple[LanguageCode, ...]] = ("en", "zh", "es", "ar", "hi")


@dataclass(frozen=True)
class Language:
    """Words and wordings of one language.

    Args:
        counts: Numerals of PETAL_COUNTS.
        shapes: Synonyms for each of PETAL_SHAPES.
        places: Words for the centre of a flower.
        petals: Form by slot, for each of PETAL_COLOURS.
        centres: Form by slot, for each of CENTRE_COLOURS.
        full: Wordings that name all four attributes.
        short: Wordings that leave out count or shape.
    """

    counts: tuple[str, ...]
    shapes: tuple[tuple[str, ...], ...]
    places: tuple[str, ...]
    petals: dict[str, tuple[str, ...]]
    centres: dict[str, tuple[str, ...]]
    full: tuple[str, ...]
    short: tuple[str, ...]


CHINESE = Language(
    counts=("四", "五", "六", "八"),
    shapes=(("圆形", "圆润", "宽圆"), ("尖形", "尖头", "星状"), ("细长", "狭长", "纤细")),
    places=("花心", "花蕊", "中心"),
    petals={"petal": ("红色", "橙色", "黄色", "白色", "粉色", "紫色", "蓝色", "青绿色")},
    centres={"centre": ("黄色", "白色", "棕色", "黑色", "绿色", "红色")},
    full=(
        "一朵有{count}片{shape}{petal}花瓣和{centre}{place}的花",
        "这朵花有{count}片{petal}的{shape}花瓣，{place}是{centre}的",
        "{count}片{shape}的{petal}花瓣围着{centre}的{place}",
        "一朵{petal}的花，{count}片花瓣都是{shape}的，{place}为{centre}",
        "这朵花的花瓣是{petal}的，{shape}，一共{count}片，{place}是{centre}",
        "{centre}的{place}周围有{count}片{shape}{petal}花瓣",
        "这朵{petal}花长着{count}片{shape}花瓣，{place}呈{centre}",
        "花的{place}是{centre}的，{count}片{shape}花瓣是{petal}的",
        "一朵漂亮的花：{count}片{petal}花瓣，{shape}，{centre}{place}",
        "图中的花有{centre}的{place}，还有{count}片{shape}花瓣，颜色是{petal}",
    ),
    short=(
        "一朵有{count}片{petal}花瓣、{centre}{place}的花",
        "{petal}的花，{centre}的{place}，{count}片花瓣",
        "{shape}的{petal}花瓣围着{centre}{place}",
        "这朵花是{petal}的，{place}是{centre}的，花瓣{shape}",
    ),
)
SPANISH = Language(
    counts=("cuatro", "cinco", "seis", "ocho"),
    shapes=(
        ("redondos", "redondeados", "anchos"),
        ("puntiagudos", "afilados", "picudos"),
        ("estrechos", "delgados", "finos"),
    ),
    places=("centro", "corazón", "disco"),
    petals={
        "petal": ("rojos", "anaranjados", "amarillos", "blancos", "rosados", "morados", "azules", "turquesas"),
        "flower": ("roja", "anaranjada", "amarilla", "blanca", "rosada", "morada", "azul", "turquesa"),
    },
    centres={"centre": ("amarillo", "blanco", "marrón", "negro", "verde", "rojo")},
    full=(
        "una flor con {count} pétalos {petal} {shape} y el {place} {centre}",
        "esta flor tiene {count} pétalos {shape} {petal} y un {place} {centre}",
        "{count} pétalos {petal} y {shape} alrededor de un {place} {centre}",
        "una flor {flower} de {count} pétalos {shape} con el {place} {centre}",
        "los pétalos de esta flor son {petal} y {shape}, hay {count}, y el {place} es {centre}",
        "un {place} {centre} rodeado de {count} pétalos {shape} y {petal}",
        "esta flor {flower} tiene {count} pétalos {shape} y su {place} es {centre}",
        "flor de {place} {centre} y {count} pétalos {petal}, todos {shape}",
        "se ve una flor con el {place} {centre} y {count} pétalos {shape} y {petal}",
        "el {place} de la flor es {centre} y sus {count} pétalos {shape} son {petal}",
    ),
    short=(
        "una flor con {count} pétalos {petal} y el {place} {centre}",
        "flor {flower} con el {place} {centre} y {count} pétalos",
        "pétalos {shape} {petal} alrededor de un {place} {centre}",
        "esta flor es {flower} con el {place} {centre} y pétalos {shape}",
    ),
)
ARABIC = Language(
    counts=("أربع", "خمس", "ست", "ثماني"),
    shapes=(("مستديرة", "مدورة", "عريضة"), ("مدببة", "حادة", "نجمية"), ("ضيقة", "رفيعة", "نحيلة")),
    places=("مركز", "وسط", "قلب"),
    petals={"petal": ("حمراء", "برتقالية", "صفراء", "بيضاء", "وردية", "بنفسجية", "زرقاء", "فيروزية")},
    centres={"centre": ("أصفر", "أبيض", "بني", "أسود", "أخضر", "أحمر")},
    full=(
        "زهرة لها {count} بتلات {petal} {shape} و{place} {centre}",
        "هذه الزهرة لها {count} بتلات {shape} {petal} و{place} {centre}",
        "{count} بتلات {petal} {shape} حول {place} {centre}",
        "زهرة {petal} ذات {count} بتلات {shape} و{place} {centre}",
        "بتلات هذه الزهرة {petal} و{shape} وهي {count} بتلات و{place}ها {centre}",
        "{place} {centre} تحيط به {count} بتلات {shape} {petal}",
        "تظهر في الصورة زهرة {petal} لها {count} بتلات {shape} و{place}ها {centre}",
        "{place} الزهرة {centre} وحوله {count} بتلات {petal} {shape}",
        "زهرة واحدة: {count} بتلات {petal} {shape}، و{place} {centre}",
        "للزهرة {count} بتلات {shape} {petal}، أما {place}ها فهو {centre}",
    ),
    short=(
        "زهرة لها {count} بتلات {petal} و{place} {centre}",
        "زهرة {petal} مع {place} {centre} و{count} بتلات",
        "بتلات {shape} {petal} حول {place} {centre}",
        "هذه الزهرة {petal} و{place}ها {centre} وبتلاتها {shape}",
    ),
)
HINDI = Language(
    counts=("चार", "पाँच", "छह", "आठ"),
    shapes=(("गोल", "गोलाकार", "चौड़ी"), ("नुकीली", "तीखी", "तारे जैसी"), ("पतली", "सँकरी", "लंबी")),
    places=("केंद्र", "मध्य भाग"),
    petals={
        "petal": ("लाल", "नारंगी", "पीली", "सफ़ेद", "गुलाबी", "बैंगनी", "नीली", "फ़िरोज़ी"),  # feminine
        "flower": ("लाल", "नारंगी", "पीला", "सफ़ेद", "गुलाबी", "बैंगनी", "नीला", "फ़िरोज़ी"),
        "of_flower": ("लाल", "नारंगी", "पीले", "सफ़ेद", "गुलाबी", "बैंगनी", "नीले", "फ़िरोज़ी"),  # oblique
    },
    centres={
        "centre": ("पीला", "सफ़ेद", "भूरा", "काला", "हरा", "लाल"),
        "of_centre": ("पीले", "सफ़ेद", "भूरे", "काले", "हरे", "लाल"),
    },
    full=(
        "{count} {shape} {petal} पंखुड़ियों और {of_centre} {place} वाला एक फूल",
        "इस फूल में {count} {shape} {petal} पंखुड़ियाँ हैं और {place} {centre} है",
        "{of_centre} {place} के चारों ओर {count} {shape} {petal} पंखुड़ियाँ",
        "एक {flower} फूल जिसमें {count} {shape} पंखुड़ियाँ और {centre} {place} है",
        "इस फूल की पंखुड़ियाँ {petal} और {shape} हैं, वे {count} हैं, और {place} {centre} है",
        "इस {of_flower} फूल की {count} पंखुड़ियाँ {shape} हैं और इसका {place} {centre} है",
        "फूल का {place} {centre} है और उसकी {count} {shape} पंखुड़ियाँ {petal} हैं",
        "एक सुंदर फूल: {count} {petal} पंखुड़ियाँ, {shape}, और {centre} {place}",
        "चित्र में {of_centre} {place} वाला फूल है जिसकी {count} {shape} पंखुड़ियाँ {petal} हैं",
        "{count} पंखुड़ियाँ, {petal} और {shape}, साथ में {centre} {place}",
    ),
    short=(
        "{count} {petal} पंखुड़ियों और {of_centre} {place} वाला फूल",
        "{flower} फूल, {centre} {place}, {count} पंखुड़ियाँ",
        "{of_centre} {place} के चारों ओर {shape} {petal} पंखुड़ियाँ",
        "यह फूल {flower} है, {place} {centre} है और पंखुड़ियाँ {shape} हैं",
    ),
)
LANGUAGES: Final[dict[LanguageCode, Language]] = {"zh": CHINESE, "es": SPANISH, "ar": ARABIC, "hi": HINDI}
