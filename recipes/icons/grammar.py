"""Names of icons -> object and attributes: "folder-lock-outline" is a folder, with a lock badge, outlined.

Names are read, never drawings. A word that means different things in different sets stays in the object's name,
where it does no harm: a parse that says less is better than one that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from cig.benchmarks._icons.captions import POINTING, SIDED, word_set
from cig.benchmarks._icons.corpus import Icon

OUTLINE, FILLED, BOLD, THIN, DUOTONE = "outlined", "filled", "bold", "thin", "duotone"

BADGES = {
    "plus": ("plus", "add"),
    "minus": ("minus", "subtract", "dash"),
    "check": ("check", "checkmark", "tick", "done", "checked"),
    "cross": ("x", "xmark", "close", "dismiss", "times", "cross"),
    "slash": ("off", "slash"),
    "ban": ("prohibited", "blocked", "ban", "forbid"),
    "lock": ("lock", "locked"),
    "exclamation mark": ("exclamation", "alert", "warning", "alerted"),
    "question mark": ("question", "help"),
    "magnifier": ("search", "magnify", "magnifying"),
    "gear": ("cog", "settings", "gear", "setting"),
    "heart": ("heart", "favorite"),
    "star": ("star",),
    "clock": ("clock", "time", "schedule"),
    "pencil": ("edit", "pen", "pencil"),
    "play": ("play",),
    "pause": ("pause",),
    "sync": ("sync", "refresh"),
    "lightning": ("bolt", "flash", "lightning"),
    "sparkle": ("sparkle", "sparkles", "ai", "spark"),
    "dollar": ("dollar",),
    "share": ("share",),
    "key": ("key",),
    "pin": ("pin",),
    "code": ("code",),
    "person": ("person", "user", "account"),
    "link": ("link",),
    "eye": ("eye",),
    "music note": ("music",),
    "picture": ("image", "picture"),
    "text": ("text",),
    "download": ("download",),
    "upload": ("upload",),
    "dot": ("badged",),
    "medical cross": ("medical",),
}
BADGE_OF = {word: badge for badge, words in BADGES.items() for word in words}

ENCLOSURES = {word: word for word in ("circle", "square", "hexagon", "octagon", "diamond")}
VERTICAL = {"up": "up", "down": "down", "top": "up", "bottom": "down"}
HORIZONTAL = {"left": "left", "right": "right"}
SIDES = {**VERTICAL, **HORIZONTAL}

# What points or has sides has a direction; on anything else ("user-up") a last "up" is a small arrow, a badge.
DIRECTED = POINTING | SIDED
STROKES = ("dashed", "dotted")  # "circle-dashed-check" is a check in a dashed circle
# What is left of a name without its enclosure has to be a thing: a "dashed circle" is no "dashed" in a circle.
NO_THING = word_set(
    "alt big bold bottom center clear corner cut dashed diagonal dotted double empty end fill filled fold full half "
    "hollow horizontal in inside inner inset large light line lines middle minimal mini multiple new of off on one "
    "open out outer outline outside over part partial quarter round rounded segment sharp shape simple single slim "
    "small solid split start thick thin thin three tight top triple two variant vertical wide"
)
# A "message circle" is a round bubble, and a "selection square" the selection itself.
ROUND_THINGS = word_set("message messages bubble chat comment inner outer dots selection brand progress half color")
NUMBERED = word_set(  # things whose number is part of what they are
    "numeric number numbers dice battery clock hour level wifi signal brightness column columns row rows grid layout "
    "exposure counter looks filter network bar bars multiplier rating speed timer forward replay rewind time cell "
    "hexagon octagon circle square diamond letter box h heading crop card temperature function list format sort "
    "reception kid g k mp hd percent year wb dialpad"
)
SPELT = word_set("letter alpha numeric number sign add")  # "letter-x" is the letter
BRANDS = re.compile(
    r"(^|-)(brand|logo|flag|facebook|google|microsoft|github|gitlab|twitter|android|apple|youtube|instagram|linkedin|whatsapp|"
    r"telegram|paypal|reddit|slack|discord|tiktok|spotify|amazon|openai|claude|gemini|ibm|visa|nintendo|playstation|xbox|"
    r"watson|zodiac|language|figma|adobe|bitcoin|ubuntu|chrome|firefox|safari|windows|linux|docker|steam|twitch|pinterest|"
    r"snapchat|dribbble|behance|medium|skype|wechat|alipay|wordpress|yahoo|vimeo|tumblr|dropbox|onedrive|netflix|uber|airbnb)"
    r"(-|$)"
)
BRAND_CATEGORY = re.compile(r"brand|logo|flag", re.IGNORECASE)
LOCALE = re.compile(r"ltr|rtl|lt?r|ar|he|fr|es|ja|ko|ac|de|it|kk|no|ru|sv|tr|uk|zh|pl|th")


@dataclass(frozen=True)
class Naming:
    """How a set writes its names.

    Attributes:
        style: of a name that says nothing.
        styles: last word -> style; None leaves the drawing out (too close to another weight of the same drawing).
        also: words that mean a badge in this set alone.
        numbers: whether a last number tells apart drawings of one thing.
        enclosed: where the enclosure stands; "circle-check" is a check in a circle in some sets alone.
        arrows: the directions that are arrow badges on what neither points nor has sides.
        keep: which names are taken at all.
    """

    style: str = OUTLINE
    styles: dict[str, str | None] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    numbers: bool = False
    enclosed: Literal["last", "either"] = "last"
    arrows: tuple[str, ...] = ("up", "down", "left", "right")
    keep: Callable[[list[str]], list[str] | None] = lambda words: words


def _fluent(words: list[str]) -> list[str] | None:
    """One size of each: 24 px, or 20 where there is no other; the size goes."""
    if len(words) < 2 or words[-1] not in ("filled", "regular", "light") or words[-2] not in ("24", "20"):
        return None
    if any(LOCALE.fullmatch(word) for word in words):
        return None
    return [*words[:-2], words[-1]]


def _material(words: list[str]) -> list[str] | None:
    return None if words[-1] in ("rounded", "sharp") else words


def _clarity(words: list[str]) -> list[str]:
    """ "bell-outline-badged": the style comes before the badge; "line" is the style of what has no badge."""
    if len(words) > 2 and words[-1] in ("badged", "alerted") and words[-2] in ("outline", "solid", "line"):
        return [*words[:-2], words[-1], words[-2]]
    return words


SETS = {
    # Training: large sets.
    "mdi": Naming(FILLED, {"outline": OUTLINE}, also={"remove": "cross", "cancel": "ban"}),
    "ph": Naming(OUTLINE, {"fill": FILLED, "bold": BOLD, "thin": THIN, "light": None, "duotone": DUOTONE}),
    "material-symbols": Naming(FILLED, {"outline": OUTLINE}, also={"remove": "minus"}, keep=_material),
    "lucide": Naming(OUTLINE, enclosed="either"),
    "carbon": Naming(OUTLINE, {"filled": FILLED, "solid": FILLED, "fill": FILLED, "outline": OUTLINE}),
    "bi": Naming(OUTLINE, {"fill": FILLED}),
    "mingcute": Naming(OUTLINE, {"line": OUTLINE, "fill": FILLED}, numbers=True),
    "iconoir": Naming(OUTLINE, {"solid": FILLED}),
    "hugeicons": Naming(OUTLINE, numbers=True, enclosed="either"),
    # Validation: the sets that trials have looked at.
    "tabler": Naming(OUTLINE, {"filled": FILLED}, {"cancel": "ban", "ai": "ai"}, True, "either", ("up", "down")),
    "fluent": Naming(
        OUTLINE,
        {"filled": FILLED, "regular": OUTLINE, "light": THIN},
        {"error": "exclamation mark", "alert": "bell"},
        arrows=(),
        keep=_fluent,
    ),
    # Test: sets whose drawings nobody has looked at. Their conventions are read off their names alone.
    "tdesign": Naming(OUTLINE, {"filled": FILLED}, numbers=True),
    "mynaui": Naming(OUTLINE, {"solid": FILLED}, numbers=True),
    "clarity": Naming(OUTLINE, {"line": OUTLINE, "outline": OUTLINE, "solid": FILLED}, keep=_clarity),
    "f7": Naming(OUTLINE, {"fill": FILLED}, numbers=True),
    "majesticons": Naming(FILLED, {"line": OUTLINE}, numbers=True),
    "stash": Naming(OUTLINE, {"solid": FILLED, "light": THIN, "duotone": DUOTONE}, enclosed="either"),
    "proicons": Naming(OUTLINE, numbers=True),
}


def parse(prefix: str, name: str) -> Icon | None:
    """An icon's object and attributes; None for a brand, and for what the set's rules leave out."""
    naming = SETS[prefix]
    if BRANDS.search(name):
        return None
    words = naming.keep([word for word in name.split("-") if word])
    if not words:
        return None
    style: str | None = naming.style
    if len(words) > 1 and words[-1] in naming.styles:
        style, words = naming.styles[words[-1]], words[:-1]
    if style is None:
        return None
    words, variant = _variant(words, naming)
    words, badge = _badge(words, naming)
    words, enclosure = _enclosure(words, prefix, naming.enclosed)
    rest, direction = _direction(words)
    if direction and not DIRECTED & set(rest):
        if badge or " " in direction:
            return None
        arrow = direction in naming.arrows
        rest, badge, direction = (rest, f"{direction} arrow", "") if arrow else (words, "", "")
    words = rest
    if not words:
        return None
    return Icon(prefix, name, " ".join(words), badge, enclosure, direction, style, variant)


def _variant(words: list[str], naming: Naming) -> tuple[list[str], str]:
    """ "user-2" is another drawing of a user; "dice-2" is not another of a die. "alt" and "variant" always are."""
    if len(words) > 1 and words[-1] in ("alt", "variant"):
        return words[:-1], words[-1]
    own = naming.numbers and len(words) > 1
    numbered = own and (re.fullmatch(r"0\d", words[-1]) or (words[-1].isdecimal() and not NUMBERED & set(words[:-1])))
    return (words[:-1], words[-1]) if numbered else (words, "")


def _badge(words: list[str], naming: Naming) -> tuple[list[str], str]:
    """The last word of several; an enclosure or a direction may stand behind it."""
    for at in (len(words) - 1, len(words) - 2):
        if at < 1 or set(words[at + 1 :]) - set(ENCLOSURES):
            break
        badge = naming.also.get(words[at]) or BADGE_OF.get(words[at], "")
        rest = [*words[:at], *words[at + 1 :]]
        if badge and words[at - 1] not in SPELT and _is_thing([word for word in rest if word not in ENCLOSURES]):
            return rest, badge
    return words, ""


def _enclosure(words: list[str], prefix: str, enclosed: str) -> tuple[list[str], str]:
    """ "user-circle", and in some sets "circle-user", "circle-dashed-user"; "box" is a square in mdi."""
    last = "square" if prefix == "mdi" and words[-1] == "box" else words[-1]
    if last in ENCLOSURES and _can_be_enclosed(words[:-1]):
        return (words, "") if words == ["document", "square"] else (words[:-1], last)
    if enclosed == "either" and words[0] in ENCLOSURES:
        stroke = [word for word in words[1:2] if word in STROKES]
        rest = [word for word in words[1 + len(stroke) :] if word != "rounded"]
        if _can_be_enclosed(rest):
            return rest, " ".join([*stroke, words[0]])
    return words, ""


def _can_be_enclosed(words: list[str]) -> bool:
    return _is_thing(words) and not (ROUND_THINGS | set(ENCLOSURES)) & set(words)


def _direction(words: list[str]) -> tuple[list[str], str]:
    """One of eight; a name with both left and right, say, has none. Its words go together, wherever they stand."""
    sides = [word for word in words if word in SIDES]
    rest = [word for word in words if word not in SIDES]
    if not sides or len(sides) > 2 or not _is_thing(rest):
        return words, ""
    if len(sides) == 2 and (sides[0] in VERTICAL) == (sides[1] in VERTICAL):
        return words, ""
    return rest, " ".join(SIDES[side] for side in sorted(sides, key=lambda side: side in HORIZONTAL))


def _is_thing(words: Iterable[str]) -> bool:
    return any(word not in NO_THING and word not in SIDES and not word.isdecimal() for word in words)


def brands(categories: dict[str, list[str]]) -> set[str]:
    """Names that a set's own categories call brands or flags."""
    return {name for category, names in categories.items() if BRAND_CATEGORY.search(category) for name in names}


def one_of_each(icons: Iterable[Icon]) -> Iterator[Icon]:
    """One drawing of what shares everything, variant included (sizes): the first."""
    seen = set()
    for icon in icons:
        key = (icon.key, icon.variant)
        if key not in seen:
            seen.add(key)
            yield icon
