"""A caption -> the same without "a picture of" or the like, unless the picture is what is seen."""

import re

_ONE = r"(?:image|photo(?:graph)?|picture|pic|snapshot)"
_ADJECTIVE = (
    r"(?:close[- ]?up|black[- ]and[- ]white|b&w|colou?r(?:ed|ful)?|blurry|blurred|old|vintage|"
    r"beautiful|nice|stunning|detailed|cropped|aerial|candid|professional|stock|digital|high-quality"
    r"|low-quality|grainy|dark|still|wide|sepia) "
)
_KIND = rf"(?:{_ADJECTIVE}){{0,2}}"
_PICTURE = rf"(?:{_KIND}{_ONE}|(?:{_ADJECTIVE}){{1,2}}shot)"  # a shot alone may be of whiskey
_SHOWS = (
    r"(?:clearly |prominently )?(?:shows?|showing|depicts?|depicting|features?|featuring|captures?|"
    r"displays?|displaying|contains?|containing|portrays?|presents?|illustrates?)(?: that)?"
)
_OPENING = re.compile(
    rf"(?:(?:this|it|here) is )?(?:(?:an?|the|this) )?"
    rf"(?:{_PICTURE}(?P<of> of)|(?:{_PICTURE}|(?<=this )shot)(?: is of| (?:that |which )?{_SHOWS}"
    r"| is(?= an? (?!bit|little)))|(?:images|photo(?:graph)?s|pictures) (?:show|depict))\b ?"
    rf"|in (?:this|the) (?:{_KIND}{_ONE}|(?<=this ){_KIND}shot)"
    r"(?:, | (?=(?:an?|the|two|three|we|you|there) ))(?:there (?:is|are) )?"
    r"|(?:we|you|i) (?:can )?see (?=an? |the |two |three |several |many |some |people )",
    re.IGNORECASE,
)
_NAMED = ("image", "photo", "pic", "shot", "see ")  # each opening has one of these
_IDIOM = re.compile(
    r"(?:course|health|innocence|elegance|happiness|joy|contentment|concentration|serenity|"
    r"perfection|despair|misery)\b",
    re.IGNORECASE,
)
_SURFACE = (
    r"(?:an?|the|his|her|their) (?:[\w-]+ )?(?:desk|table|shelf|mantel|mantelpiece|easel|dresser|"
    r"nightstand|counter|piano)\b"
)
# What is said of the picture itself, as in "a picture of a ship hangs above a bed".
_THING = re.compile(
    r"(?<!\bthat)(?<!\bwhich)(?<!\bwho)(?<!\bit)(?<!\bhe)(?<!\bshe) (?:hangs|is (?:on|in|above|"
    r"hanging|hung|displayed|shown|projected|printed|painted|pinned|taped|mounted|framed|propped)|"
    rf"(?:sits|lies|rests|stands) on {_SURFACE}|leans against)\b"
    r"|(?<!\bsign)(?<!\bnote)(?<!\bposter)(?<!\bpaper)(?<!\bflyer) (?:framed|taped|pinned|tacked|"
    r"printed|projected|tattooed) (?:above|across|in|inside|on|onto|over|to|up)\b"
    r"| in an? (?:[\w-]+ )?frame\b(?! house)"
    rf"| (?:and|beside|next to|above|below|under|near) (?:an?|the|another) {_KIND}{_ONE}\b",
    re.IGNORECASE,
)


def without_opening(text: str) -> str:
    """Return a caption without the words at its start that say only that it is of a picture.

    "A shot of whiskey", "a picture of health" and "a picture of a ship hangs above a bed" stay.
    """
    lower = text.lower()
    if lower.isascii() and not any(named in lower for named in _NAMED):
        return text  # soon: the pattern is slow
    opening = _OPENING.match(text)
    if opening is None:
        return text
    rest = text[opening.end() :]
    is_meant = opening["of"] and (_IDIOM.match(rest) or _THING.search(rest))
    return text if is_meant else rest
