"""Captions of icons for training, in many wordings.

The benchmarks' queries are worded by `recipes/icons/wordings.py`; those of icons/test are in none of the forms here.
"""

from __future__ import annotations

from random import Random

from cig.benchmarks._icons.corpus import Icon


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


POINTING = word_set(
    "arrow arrows chevron chevrons caret carets angle angles triangle hand finger cursor pointer pointing arrowhead "
    "swipe arrowtriangle turn corner trending cheveron indent thumb thumbs skip play backward forward direction"
)
SIDED = word_set(
    "panel panels sidebar layout align alignment border dock radius column columns row page float box section drawer "
    "text half split pane window view side sheet toolbar navigation tab container inset object objects frame grid"
)
SIDE_WORDS = {"up": "top", "down": "bottom", "left": "left", "right": "right"}
SHARE_DISTRACTED = 0.5  # of captions that get words without a meaning
SHARE_NEGATED = 0.15  # of captions of an icon without a badge that say so


def article(noun: str) -> str:
    """ "a lock", "an eye", "a user" """
    vowel = noun[:1] in "aeiou" and not noun.startswith(("us", "uni", "eu", "one"))
    return ("an " if vowel else "a ") + noun


def side_of(direction: str) -> str:
    """ "top left" of "up left" """
    return " ".join(SIDE_WORDS[word] for word in direction.split())


def points(icon: Icon) -> bool:
    """Tell whether its direction is where it points; else it is the side that something is on."""
    return bool(POINTING & set(icon.object.split()))


def clauses(icon: Icon, ink: str, rng: Random, *, without: str = "") -> list[str]:
    """Say some attributes of an icon, each in one of several forms, in a random order.

    Args:
        without: a badge that others of its kind have.
    """
    said = []
    if rng.random() < 0.6:
        said.append(rng.choice([f"is {ink}", f"is {ink}", f"in {ink}", f"is drawn in {ink}"]))
    if rng.random() < 0.6:
        said.append(rng.choice([f"is {icon.style}", f"is {icon.style}", icon.style]))
    if icon.badge:
        badge = article(icon.badge)
        said.append(rng.choice([f"has {badge} badge", f"has {badge} badge", f"with {badge} badge", f"with {badge}"]))
    elif rng.random() < SHARE_NEGATED:
        said.append(rng.choice([f"has no {without} badge", f"without the {without}"] if without else ["has no badge"]))
    if icon.direction and points(icon):
        said.append(rng.choice([f"points {icon.direction}", f"pointing {icon.direction}"]))
    elif icon.direction:
        said.append(rng.choice([f"is on the {side_of(icon.direction)}", f"on the {side_of(icon.direction)}"]))
    if icon.enclosure:
        enclosure = article(icon.enclosure)
        said.append(rng.choice([f"is in {enclosure}", f"is in {enclosure}", f"inside {enclosure}"]))
    rng.shuffle(said)
    return said


def caption(icon: Icon, ink: str, rng: Random, *, without: str = "") -> str:
    """Write "a photo of folder that has a lock badge and is red", "a red outlined folder with a lock badge", ...

    Half have the form of the composing prompt, `a photo of $ that {caption}`, so that the text tower learns it.
    """
    if rng.random() < 0.5:
        said = clauses(icon, ink, rng, without=without)
        joined = rng.choice([" and ", ", "]).join(said)
        return f"a photo of {icon.object}" + (f" that {joined}" if said else "")
    return rng.choice(["a photo of ", "", "", "an icon of "]) + _noun_phrase(icon, ink, rng)


def _noun_phrase(icon: Icon, ink: str, rng: Random) -> str:
    words = [word for word in (ink, icon.style) if rng.random() < 0.6]
    words.append(icon.object)
    phrase = article(" ".join(words)) if rng.random() < 0.6 else " ".join(words)
    tail = []
    if icon.badge:
        badge = article(icon.badge)
        tail.append(rng.choice([f"with {badge} badge", f"with {badge}", icon.badge]))
    if icon.direction:
        side = icon.direction if points(icon) else side_of(icon.direction)
        tail.append(rng.choice([f"pointing {side}" if points(icon) else f"on the {side}", side]))
    if icon.enclosure:
        tail.append(rng.choice([f"in {article(icon.enclosure)}", icon.enclosure]))
    return " ".join([phrase, *tail])


def distracted(text: str, rng: Random) -> str:
    """Insert one to three made-up words at random, half of the time: a text tower should ignore unknown words.

    A tower trained on templates alone takes an unknown word ("instead") for anything.
    """
    if rng.random() > SHARE_DISTRACTED:
        return text
    words = text.split()
    for _ in range(rng.randint(1, 3)):
        words.insert(rng.randint(0, len(words)), made_up(rng))
    return " ".join(words)


def made_up(rng: Random) -> str:
    """ "tolen", "briva" """
    syllables = [rng.choice("bcdfghklmnprstvw") + rng.choice("aeiouy") for _ in range(rng.randint(1, 3))]
    return "".join(syllables) + rng.choice(["", *"nrstld"])
