"""How a benchmark's queries say what changes. Half of val's are in training's forms, half in its own; test's are in no
training caption and not in val's. Half of the times that test says a style, or a badge of SYNONYMS, it says it by
another name: 26% of its captions of a changed badge. "is a folder" is in no caption that a CLIP was trained on, nor is
an enclosure that is gone; a generator reads both in icons/altered, the latter in icons/triplets.
"""

from __future__ import annotations

from random import Random

from cig.benchmarks._icons.captions import article, side_of
from cig.benchmarks._icons.corpus import Icon
from cig.benchmarks._icons.triplets import FORMS, form_of

Forms = dict[str, tuple[str, ...]]

TRAINING: Forms = {**FORMS, "object": ("is {object}",)}  # none that a CLIP is trained on says an object so
VALIDATION: Forms = {
    "ink": ("the same in {ink}", "but {ink}", "has a {ink} colour"),
    "style": ("{style} instead of {old_style}", "but {style}"),
    "badge": ("with {badge} in the corner", "has {badge} added", "comes with {badge}"),
    "no badge": ("no longer has the {old_badge}", "no {old_badge}"),
    "points": ("goes {direction}", "turned {direction}"),
    "side": ("moved to the {side}", "at the {side}"),
    "enclosure": ("has {enclosure} around it", "within {enclosure}"),
    "no enclosure": ("no {old_enclosure} around it", "outside the {old_enclosure}"),
    "object": ("{object} instead", "becomes {object}"),
}
TEST: Forms = {
    "ink": ("coloured {ink}", "painted {ink}", "changed to {ink}"),
    "style": ("made {style}", "drawn {style} rather than {old_style}", "turns {style}"),
    "badge": ("carries {badge} mark", "featuring {badge}", "marked by {badge} symbol", "shows {badge} sign"),
    "no badge": ("lacks the {old_badge}", "free of the {old_badge} mark", "the {old_badge} is gone"),
    "points": ("facing {direction}", "heading {direction}", "aims {direction}"),
    "side": ("placed {side}", "sits {side}"),
    "enclosure": ("surrounded by {enclosure}", "framed by {enclosure}"),
    "no enclosure": ("lacks the {old_enclosure}", "the surrounding {old_enclosure} is gone"),
    "object": ("depicts {object}", "shows {object} rather than {old_object}"),
}
# Words of icons' names in training, but never of a badge's in a training caption.
SYNONYMS = {
    "check": "tick",
    "gear": "cog",
    "magnifier": "magnifying glass",
    "lightning": "bolt",
    "person": "user",
    "exclamation mark": "alert",
    "cross": "x",
    "lock": "padlock",
    "sync": "refresh",
    "pencil": "pen",
    "heart": "favorite",
    "sparkle": "stars",
    "ban": "block",
    "slash": "diagonal bar",
    "picture": "image",
}
STYLE_SYNONYMS = {"filled": "solid", "outlined": "hollow", "thin": "slender", "bold": "heavy"}


def say(split: str, changes: tuple[str, ...], reference: Icon, target: Icon, ink: str, rng: Random) -> str:
    """The relative caption: what of the reference changes into the target, e.g. "with a lock in the corner, in red"."""
    forms = {"test": TEST, "val": rng.choice([TRAINING, VALIDATION])}[split]
    synonyms = rng.random() < 0.5 if split == "test" else False

    def named(badge: str, names: dict[str, str]) -> str:
        return names.get(badge, badge) if synonyms else badge

    words = {
        "ink": ink,
        "style": named(target.style, STYLE_SYNONYMS),
        "old_style": named(reference.style, STYLE_SYNONYMS),
        "badge": article(named(target.badge, SYNONYMS)),
        "old_badge": named(reference.badge, SYNONYMS),
        "direction": target.direction,
        "side": side_of(target.direction),
        "enclosure": article(target.enclosure),
        "old_enclosure": reference.enclosure,
        "object": article(target.object),
        "old_object": reference.object,
    }
    said = [rng.choice(forms[form_of(change, target)]).format_map(words) for change in changes]
    return rng.choice([" and ", ", "]).join(said).replace("mark mark", "mark")
